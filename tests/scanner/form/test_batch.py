"""Any number of pages: each is read once, whatever dies, and what is on the disk is whole."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hwr_export.errors import FormError, HwrError, ScannerError, UsageError
from hwr_export.release import Release
from hwr_export.scanner.form import journal as journal_module
from hwr_export.scanner.form.batch import Readings, read_pages
from hwr_export.scanner.form.journal import Journal, open_journal
from hwr_export.scanner.form.pool import local_engine
from hwr_export.scanner.form.units import find_files, unit_of
from hwr_export.scanner.form.worker import read_unit
from tests.conftest import ROOT
from tests.scanner.form import fakes
from tests.scanner.form.fakes import PLAIN, FakeOpener, FakeReader, fake_form, save, times_read


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    """Where readers note what they did."""
    folder = tmp_path / "memory"
    folder.mkdir()
    return folder


def documents(words: list[Path], results: Path, memory: Path, jobs: int = 2, page_s: float = 30.0) -> list[dict]:
    with open_journal(results, fake_form(), ()) as journal:
        return list(read(words, journal, memory, jobs, page_s).documents())


def read(words: list[Path], journal: Journal, memory: Path, jobs: int = 2, page_s: float = 30.0) -> Readings:
    with local_engine(FakeOpener(memory), jobs, page_s) as pool:
        return read_pages(find_files(words), journal, pool.read)


def said(documents: list[dict]) -> list[str]:
    return [d["reason"] if d["status"] == "refused" else d["fields"][0]["value"] for d in documents]


# -- reading ---------------------------------------------------------------------------------------------------------


def test_pages_come_in_the_order_of_the_words(tmp_path: Path, memory: Path) -> None:
    """Folders by name, files of many pages spread over processes, nothing twice."""
    folder = tmp_path / "in"
    save(folder / "b.png", PLAIN)
    save(folder / "a" / "z.PNG", PLAIN + 1)
    save(folder / "many.tif", *(PLAIN + n for n in range(10, 30)))
    save(folder / ".hidden.png", PLAIN + 2)
    (folder / "notes.txt").write_text("no page")
    save(tmp_path / "first.png", PLAIN + 3)
    found = documents([tmp_path / "first.png", folder, folder / "b.png"], tmp_path / "out", memory)
    assert [d["path"] for d in found] == [
        str(tmp_path / "first.png"),
        str(folder / "a" / "z.PNG"),
        str(folder / "b.png"),
        *(f"{folder / 'many.tif'}#{n}" for n in range(1, 21)),
    ]
    assert said(found) == [str(PLAIN + n) for n in (3, 1, 0, *range(10, 30))]
    assert times_read(memory) == sorted(PLAIN + n for n in (3, 1, 0, *range(10, 30)))
    assert len({path.name.split("-")[2] for path in memory.iterdir()}) == 2  # processes
    page = found[0]
    assert (page["status"], page["reason"], page["registration_px"]) == ("read", "", 0.25)
    assert set(page) == {"path", "status", "reason", "registration_px", "ms", "fields"}
    assert page["fields"][1] == {
        "name": "doubt",
        "value": str(PLAIN + 3),
        "confidence": 0.875,
        "accepted": False,
        "reasons": ["doubtful"],
        "box": [3, 4, 20, 10],
        "alternatives": [{"value": "7", "confidence": 0.125}],
    }


def test_what_a_page_does_to_its_reader_costs_that_page(tmp_path: Path, memory: Path) -> None:
    many = save(
        tmp_path / "many.tif",
        *(PLAIN, fakes.DIES, PLAIN + 1, fakes.DIES_ONCE, fakes.FAILS, fakes.REFUSED, PLAIN + 2),
    )
    (tmp_path / "broken.png").write_bytes(many.read_bytes()[:50])
    last = save(tmp_path / "last.png", PLAIN + 3)
    found = said(documents([many, tmp_path / "broken.png", last], tmp_path / "out", memory, jobs=1))
    no_image = "is not an image in a format that can be read (PNG, JPEG, TIFF, PGM ...)"
    assert found == [
        str(PLAIN),
        "reader-died: the process that read it was killed, maybe for want of memory, 2 times",
        str(PLAIN + 1),
        str(fakes.DIES_ONCE),
        "failed: ZeroDivisionError: by nothing; report it",
        "blank-page: nothing is on it",
        str(PLAIN + 2),
        f"unreadable: {tmp_path / 'broken.png'} {no_image}",
        str(PLAIN + 3),
    ]
    assert times_read(memory).count(fakes.DIES) == 2


def test_a_fault_of_ours_is_not_kept_quiet(tmp_path: Path, memory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    unit = unit_of(0, save(tmp_path / "page.png", fakes.FAILS))
    assert [page.refused for page in list(read_unit(FakeReader(memory), unit))[1:]] == [True]
    assert "ZeroDivisionError: by nothing" in capsys.readouterr().err


def test_a_page_that_takes_too_long_is_given_up(tmp_path: Path, memory: Path) -> None:
    many = save(tmp_path / "many.tif", PLAIN, fakes.HANGS, PLAIN + 1, fakes.LIMIT, PLAIN + 2)
    found = said(documents([many], tmp_path / "out", memory, page_s=2.0))
    assert found == [
        str(PLAIN),
        "too-slow: reading it took more than 2 s",
        str(PLAIN + 1),
        "too-slow: decoding it took more than 10 s of processor time",
        str(PLAIN + 2),
    ]
    assert times_read(memory).count(fakes.LIMIT) == 1


@pytest.mark.parametrize(
    ("opener", "words"),
    [
        ({"error": "no runtime is installed"}, "no runtime is installed"),
        ({"dies": True}, "processes for reading do not come up: the last one was killed, maybe for want of memory"),
    ],
)
def test_what_cannot_read_at_all_ends_the_run(tmp_path: Path, memory: Path, opener: dict, words: str) -> None:
    save(tmp_path / "page.png", PLAIN)
    with (
        open_journal(tmp_path / "out", fake_form(), ()) as journal,
        local_engine(FakeOpener(memory, **opener), 1) as pool,
        pytest.raises(HwrError, match=words),
    ):
        read_pages(find_files([tmp_path / "page.png"]), journal, pool.read)


def test_a_backend_that_fails_ends_the_run_and_what_was_read_stays(tmp_path: Path, memory: Path) -> None:
    words = [save(tmp_path / "a.png", PLAIN), save(tmp_path / "b.png", fakes.NO_BACKEND)]
    with pytest.raises(HwrError, match="the backend has gone"):
        documents(words, tmp_path / "out", memory, jobs=1)
    save(words[1], PLAIN + 1)
    assert said(documents(words, tmp_path / "out", memory)) == [str(PLAIN), str(PLAIN + 1)]
    assert times_read(memory) == [fakes.NO_BACKEND, PLAIN, PLAIN + 1]


def test_words_that_are_nothing(tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"there is no file or folder .*gone; give page files \(PNG, JPEG, TIFF, PDF\)"
    ):
        find_files([tmp_path, tmp_path / "gone"])


def test_folders_that_are_written_to_are_not_looked_into(tmp_path: Path) -> None:
    for name in ("a/1.png", "results/2.png", "b/3.png"):
        save(tmp_path / name, PLAIN)
    (tmp_path / "b" / "round").symlink_to(tmp_path)
    found = list(find_files([tmp_path], [tmp_path / "results"]))
    assert found == [tmp_path / "a/1.png", tmp_path / "b/3.png"]


# -- the journal -----------------------------------------------------------------------------------------------------


def test_a_folder_of_results(tmp_path: Path, memory: Path) -> None:
    path = save(tmp_path / "page.png", PLAIN)
    documents([path], tmp_path / "out", memory)
    run = json.loads((tmp_path / "out" / "run.json").read_text())
    text = (tmp_path / "out" / "form.yaml").read_text()
    assert run["schema"] == 1
    assert (run["form"]["id"], run["form"]["version"], run["releases"]) == ("fake", 1, [])
    assert text == journal_module.dump_form(fake_form())
    (line,) = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["fields"][0]["characters"] == [{"label": "1", "confidence": 0.875, "box": [3, 4, 20, 10]}]
    stat = path.stat()
    assert found["file"] == {
        "path": str(path), "number": 1, "of": 1, "size": stat.st_size, "mtime_ns": stat.st_mtime_ns
    }  # fmt: skip


def test_the_same_again_reads_nothing_and_says_the_same(
    tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [save(tmp_path / "many.tif", PLAIN, PLAIN + 1), save(tmp_path / "page.png", fakes.REFUSED)]
    first = documents(words, tmp_path / "out", memory)
    monkeypatch.chdir(tmp_path)  # where the words begin makes no other pages of them
    with open_journal(tmp_path / "out", fake_form(), ()) as journal:
        readings = read([Path("many.tif"), Path("page.png")], journal, memory)
        assert list(readings.documents()) == first
    counts = readings.counts
    assert (counts.pages, counts.earlier, counts.refused, counts.accepted, counts.referred) == (3, 3, 1, 2, 2)
    assert times_read(memory) == [fakes.REFUSED, PLAIN, PLAIN + 1]


def test_a_file_that_changed_is_read_again(tmp_path: Path, memory: Path) -> None:
    """And nothing is left of what it was: not of a page that it has no more, nor of its name when it had several."""
    path = save(tmp_path / "page.tif", PLAIN, PLAIN + 1, PLAIN + 2)
    other = save(tmp_path / "other.png", PLAIN + 3)
    documents([path, other], tmp_path / "out", memory)
    save(path, PLAIN + 4)
    journal = tmp_path / "out" / "results.jsonl"
    before = journal.read_bytes()
    for _ in range(2):
        assert said(documents([path, other], tmp_path / "out", memory)) == [str(PLAIN + 4), str(PLAIN + 3)]
        assert sorted(json.loads(line)["path"] for line in journal.read_bytes().splitlines()) == [
            str(other), str(path)
        ]  # fmt: skip
    assert times_read(memory) == [PLAIN + n for n in range(5)]
    # A run that was killed before it ended leaves both.
    journal.write_bytes(before + journal.read_bytes())
    documents([path, other], tmp_path / "out", memory)
    assert len(journal.read_bytes().splitlines()) == 2
    assert len(times_read(memory)) == 5


@pytest.mark.parametrize("torn", [b'{"path": "x', b"\0" * 100, b'{"path": "x"}\n', b"\0\0\n{}\n"])
def test_a_torn_end_is_dropped(tmp_path: Path, memory: Path, torn: bytes) -> None:
    words = [save(tmp_path / "a.png", PLAIN)]
    first = documents(words, tmp_path / "out", memory)
    journal = tmp_path / "out" / "results.jsonl"
    whole = journal.read_bytes()
    journal.write_bytes(whole + torn)
    assert documents(words, tmp_path / "out", memory) == first
    assert journal.read_bytes() == whole


def test_a_torn_line_is_read_again(tmp_path: Path, memory: Path) -> None:
    words = [save(tmp_path / "a.png", PLAIN)]
    documents(words, tmp_path / "out", memory)
    journal = tmp_path / "out" / "results.jsonl"
    journal.write_bytes(journal.read_bytes()[:-1])
    assert said(documents(words, tmp_path / "out", memory)) == [str(PLAIN)]
    assert times_read(memory) == [PLAIN, PLAIN]


def test_a_line_damaged_in_the_middle_is_told(tmp_path: Path, memory: Path) -> None:
    words = [save(tmp_path / f"{n}.png", PLAIN + n) for n in range(3)]
    documents(words, tmp_path / "out", memory, jobs=1)
    journal = tmp_path / "out" / "results.jsonl"
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(lines[0] + b"\0" * 10 + b"\n" + lines[2])
    with pytest.raises(FormError, match=r"line 2 of .*results\.jsonl is damaged, and whole lines follow; delete that"):
        documents(words, tmp_path / "out", memory)


def test_other_forms_and_folders_are_refused(tmp_path: Path, memory: Path) -> None:
    words = [save(tmp_path / "a.png", PLAIN)]
    documents(words, tmp_path / "out", memory)

    def refusal(folder: str, form: object) -> str:
        with pytest.raises(FormError) as raised, open_journal(tmp_path / folder, form, ()):
            pass
        return str(raised.value)

    assert refusal("out", fake_form(2)) == (
        f"{tmp_path / 'out'} has results of the form fake version 1, and this is fake version 2; give a new folder"
    )
    assert "the definition of fake version 1 has changed since" in refusal(
        "out", fake_form().model_copy(update={"title": "Another"})
    )
    assert f"{tmp_path} is no folder of results (a.png is in it, run.json is not); give a new one" == refusal(
        ".", fake_form()
    )
    (tmp_path / "out" / "run.json").write_text("[]")
    assert "run.json is not what read-form writes; give a new folder" in refusal("out", fake_form())


def test_two_processes_do_not_write_at_once(tmp_path: Path) -> None:
    with (
        open_journal(tmp_path / "out", fake_form(), ()),
        pytest.raises(ScannerError, match=r"another process writes to .*out; wait until it has ended"),
        open_journal(tmp_path / "out", fake_form(), ()),
    ):
        pass


def test_a_full_disk_leaves_the_journal_whole(tmp_path: Path, memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [save(tmp_path / f"{n}.png", PLAIN + n) for n in range(4)]
    room = 1500
    real = os.pwrite

    def full(fd: int, data: bytes, at: int) -> int:
        if at >= room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(fd, data[: room - at], at)

    monkeypatch.setattr(journal_module.os, "pwrite", full)
    with pytest.raises(
        ScannerError, match=r"No space left on device\. What it has is whole; free some space"
    ) as raised:
        documents(words, tmp_path / "out", memory, jobs=1)
    assert raised.value.exit_code == 1
    kept = (tmp_path / "out" / "results.jsonl").read_bytes()
    assert 0 < len(kept) <= room
    assert kept.endswith(b"}\n")
    monkeypatch.undo()
    assert said(documents(words, tmp_path / "out", memory)) == [str(PLAIN + n) for n in range(4)]


# -- a command that is ended -----------------------------------------------------------------------------------------

COMMAND = """
import sys
from pathlib import Path
from hwr_export.cli import main
from hwr_export.scanner.form import units
from tests.scanner.form.fakes import FakeOpener
if __name__ == "__main__":
    units.FormReaderOpener = lambda *_: FakeOpener(Path("memory"))
    main("read-form in --form form.yaml --release release -o out --jobs 2".split())
"""


def started(folder: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, str(folder / "read.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "HWR_TEST_RUN": str(folder)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, env=environment, cwd=folder, start_new_session=True)


def lines_of(folder: Path) -> int:
    path = folder / "out" / "results.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def until(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def processes_of(folder: Path) -> list[int]:
    """Processes that the command started, and it itself."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if f"HWR_TEST_RUN={folder}\0".encode() in (path / "environ").read_bytes():
                found.append(int(path.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(("number", "lives"), [(signal.SIGKILL, 2), (signal.SIGINT, 1)])
def test_a_run_that_is_ended_goes_on_where_it_stopped(tmp_path: Path, memory: Path, number: int, lives: int) -> None:
    """At most the pages that are under way are lost, and read again."""
    for n in range(8):
        save(tmp_path / "in" / f"{n:02}.png", fakes.SLOW)
    save(tmp_path / "in" / "many.tif", *(PLAIN + n for n in range(12)))
    (tmp_path / "read.py").write_text(COMMAND)
    (tmp_path / "form.yaml").write_text(fakes.FORM)
    (tmp_path / "release").symlink_to(ROOT / "exported" / "digits")
    for _ in range(lives):
        before = lines_of(tmp_path)
        process = started(tmp_path)
        until(lambda before=before: lines_of(tmp_path) >= before + 2)
        os.killpg(process.pid, number) if number == signal.SIGINT else process.send_signal(number)
        _, error = process.communicate(timeout=20)
        if number == signal.SIGINT:
            assert process.returncode == 130
            assert error.decode() == "Stopped: what was read is in out; the same command again goes on from there.\n"
    until(lambda: not processes_of(tmp_path))  # nothing goes on reading for nobody
    assert lines_of(tmp_path) < 20
    with open_journal(tmp_path / "out", fake_form(), (Release.open(tmp_path / "release"),)) as journal:
        found = list(read([tmp_path / "in"], journal, memory).documents())
    assert said(found) == [str(fakes.SLOW)] * 8 + [str(PLAIN + n) for n in range(12)]
    # Each life had two processes with a page under way, and may have left a torn line.
    assert 20 <= len(times_read(memory)) <= 20 + 3 * lives
