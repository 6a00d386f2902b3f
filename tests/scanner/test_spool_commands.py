"""What a person can do about a spool: list what was refused, send it again, give it up, build a damaged one anew."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hwr_export.errors import HwrError, UsageError
from hwr_export.scan_cli import main
from hwr_export.scanner.config import load_config
from hwr_export.scanner.spool import Spool
from tests.scanner.devices import write_config
from tests.scanner.fakes import document


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A spool with three results that the folder refused and one that it has still to get."""
    path = tmp_path / "scan.toml"
    write_config(path, '[[sources]]\nkind = "watch"\nname = "in"\nfolder = "in"')
    found = load_config(path)
    with Spool(found.spool.directory, 10, 1 << 20, ("folder",), reserve_bytes=0) as spool:
        for i in range(4):
            page = spool.add("in", f"{i}.png", b"x", "png")
            spool.store_result(page, document(page, "1234"))
            if i:
                delivery = spool.outbox.pending("folder")
                assert delivery is not None
                spool.outbox.dead_letter(delivery, "it said no")
    return path


def call(config: Path, *words: str) -> Result:
    return CliRunner().invoke(main, [*words, "--config", str(config)], catch_exceptions=True)


def letters(config: Path) -> list[dict[str, str]]:
    return json.loads(call(config, "dead-letters", "--json").stdout)["dead_letters"]


def test_dead_letters_are_listed_without_what_was_read(config: Path) -> None:
    said = call(config, "dead-letters").stdout
    assert said.count("it said no") == 3
    assert "1234" not in said + json.dumps(letters(config))


def test_sent_again_they_wait_for_the_sink(config: Path) -> None:
    first = letters(config)[0]["page_id"]
    assert call(config, "send-again", "folder", "--page", first).stdout == "1 result for folder is sent again.\n"
    assert call(config, "send-again", "folder").stdout == "2 results for folder are sent again.\n"
    assert letters(config) == []


def test_discarded_they_are_gone(config: Path) -> None:
    assert isinstance(call(config, "discard", "folder").exception, SystemExit | UsageError)
    assert len(letters(config)) == 3
    assert call(config, "discard", "folder", "--yes", "--pending").stdout == "4 results for folder were discarded.\n"
    assert letters(config) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("send-again", "desk"), "there is no sink 'desk'; the spool knows folder"),
        (("send-again", "folder", "--page", "0" * 32), "folder has no dead letter of the page 000"),
        (("discard", "folder"), "then give --yes"),
    ],
)
def test_what_is_wrong_is_said(config: Path, words: tuple[str, ...], said: str) -> None:
    result = call(config, *words)
    assert result.exit_code == 2
    assert said in result.output


def test_a_damaged_spool_is_built_anew(config: Path) -> None:
    spool = load_config(config).spool.directory
    database = spool / "spool.db"
    database.write_bytes(b"noise" + database.read_bytes()[5:])
    done = json.loads(call(config, "repair", "--json").stdout)
    assert (spool / "damaged-1") == Path(done["kept"])
    with Spool(spool, 10, 1 << 20, ("folder",), reserve_bytes=0) as opened:
        assert opened.next_unread() is not None or opened.counts().undelivered == 4


def test_only_its_owner_repairs_it(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 12345)
    result = call(config, "repair")
    assert result.exit_code == 2
    assert "belongs to" in result.output
    assert issubclass(UsageError, HwrError)
