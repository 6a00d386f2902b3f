"""`scan.toml`: what is taken, and the sentence for what is not."""

import json
from pathlib import Path

import pytest

from hwr_export.errors import ScannerError, UsageError
from hwr_export.scanner.config import load_config
from hwr_export.scanner.health import HealthFile, read_health
from hwr_export.scanner.logs import log
from hwr_export.scanner.sources.states import NEEDS_A_PERSON, STATES
from hwr_export.scanner.status import service_status
from tests.conftest import ROOT
from tests.scanner.devices import write_config

WATCH = '[[sources]]\nkind = "watch"\nfolder = "in"\n'


def written(tmp_path: Path, text: str) -> Path:
    write_config(tmp_path / "scan.toml", text)
    return tmp_path / "scan.toml"


def test_relative_paths_lie_beside_the_file(tmp_path: Path) -> None:
    config = load_config(written(tmp_path, WATCH))
    assert config.sources[0].folder == tmp_path / "in"
    assert (config.root, config.spool.directory) == (tmp_path / "root", tmp_path / "spool")
    assert config.sinks[0].directory == tmp_path / "results"


def test_the_file_in_the_docs_is_valid(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "scanning.md").read_text().split("```toml\n")[1].split("```")[0]
    (tmp_path / "scan.toml").write_text(text)
    config = load_config(tmp_path / "scan.toml")
    assert (config.sources[0].kind, config.page.rows[0].count) == ("sane", 6)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "sources: Field required"),
        (f"what = 1\n{WATCH}", "what is no key; docs/scan-config.md lists them"),
        (WATCH + "settle = 1\n", "sources.0.watch.settle is no key"),
        (WATCH + WATCH, "two sources are called 'watch': give each a `name` of its own"),
        ('[[sources]]\nkind = "fax"\n', r"sources.0: Input tag 'fax' .* expected tags: 'sane', 'watch', 'stdin'"),
        ('[[sources]]\nkind = "sane"\ndevice = "x"\nmode = "flatbed"\n', "`requests` belongs to mode `flatbed`"),
        (
            '[[sources]]\nkind = "sane"\ndevice = "x"\noptions = { "--mode" = "Gray" }\n',
            "'--mode' is no option's name: write it without dashes",
        ),
        ('[[sources]]\nkind = "stdin"\n[[sources]]\nkind = "stdin"\nname = "other"\n', "one source of kind `stdin`"),
        (WATCH + "x = \n", "is not TOML"),
    ],
)
def test_a_wrong_file_is_one_sentence(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        load_config(written(tmp_path, text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"scan\.toml cannot be read: No such file or directory; docs/scanning\.md shows"
    ):
        load_config(tmp_path / "scan.toml")


def test_a_service_without_a_sink_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.toml").write_text(f'{WATCH}[spool]\ndirectory = "spool"\n')
    with pytest.raises(UsageError, match="sinks: Field required"):
        load_config(tmp_path / "scan.toml")


def test_the_docs_tell_every_state_and_what_to_do() -> None:
    page = (ROOT / "docs" / "scanning.md").read_text()
    for state, advice in STATES.items():
        assert f"| `{state}` | {advice or 'nothing'} |\n" in page
    assert set(STATES) > NEEDS_A_PERSON


def test_logs_refuse_what_is_not_on_their_list() -> None:
    with pytest.raises(ValueError, match="logs carry no 'value'"):
        log("page-read", value="123")


def health(**changes: object) -> dict:
    counts = {"unread": 0, "undelivered": 0, "images": 0, "image_bytes": 0, "sinks": {}}
    return {"state": "idle", "sources": {}, "spool": counts, "sinks": {}} | changes


def test_status_says_what_waits_for_a_person(tmp_path: Path) -> None:
    config = written(tmp_path, WATCH)
    with pytest.raises(ScannerError, match="the service has not run since the machine started"):
        service_status(config)
    HealthFile(tmp_path / "health.json").write(health())
    assert service_status(config)["ok"]
    jam = {"state": "paper-jam", "detail": "", "since": 0.0, "advice": STATES["paper-jam"]}
    dead = {"pending": 1, "dead": 2, "delivered": 3}
    counts = {"unread": 0, "undelivered": 3, "images": 0, "image_bytes": 0, "sinks": {"office": dead}}
    HealthFile(tmp_path / "health.json").write(
        health(sources={"scanner": jam}, spool=counts, sinks={"office": {"trouble": "no answer"}}, state="disk-full")
    )
    assert service_status(config)["problems"] == [
        f"scanner: paper-jam; {STATES['paper-jam']}",
        "the spool's disk: disk-full",
        "office: no answer",
        "office: 2 dead letters, which it refused: hwr-scan dead-letters",
    ]
    HealthFile(tmp_path / "health.json").write(health(state="stopped"))
    assert service_status(config)["running"] is False
    (tmp_path / "health.json").write_text("[]")
    with pytest.raises(ScannerError, match="is no health file"):
        read_health(tmp_path / "health.json")


def test_the_docs_show_the_committed_endurance_run() -> None:
    run = json.loads((ROOT / "docs" / "figures" / "scan-endurance.json").read_text())
    page = (ROOT / "docs" / "scanning.md").read_text()
    row, killed = run["in_a_row"], run["killed"]
    assert (killed["kills"], killed["pages"]) == (200, 2000)
    assert (killed["lost"], killed["duplicated"], killed["half_written"]) == (0, 0, 0)
    assert f"p50 and p95 | {row['page_s']['p50']:.2f} and {row['page_s']['p95']:.2f} |" in page
    memory = ", ".join(str(row["rss_mb"][key]) for key in ("second_fifth", "last_fifth", "max"))
    assert f"most | {memory} MB |" in page
