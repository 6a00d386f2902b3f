"""A damaged database is refused, left as it is, and repaired on request: no page is lost."""

import contextlib
import random
import shutil
import sqlite3
from pathlib import Path

import pytest

from hwr_export.errors import ScannerError
from hwr_export.scanner import repair as repair_module
from hwr_export.scanner.faults import SpoolDamagedError
from hwr_export.scanner.repair import Repaired, repair
from hwr_export.scanner.spool import Spool
from tests.scanner.fakes import document

SINKS = ("archive", "desk")


def opened(path: Path) -> Spool:
    return Spool(path, 1000, 1 << 20, SINKS, reserve_bytes=0)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a spool of 60 pages: 20 delivered to both sinks, 20 to one, 20 unread; images are kept."""
    with opened(tmp_path / "spool") as spool:
        pages = [spool.add("watch", f"{i}.png", str(i).encode(), "png") for i in range(60)]
        for page in pages[:40]:
            spool.store_result(page, document(page, "7" * 200))
        for sink, count in (("archive", 40), ("desk", 20)):
            for _ in range(count):
                delivery = spool.outbox.pending(sink)
                assert delivery is not None
                spool.outbox.delivered(delivery)
    return tmp_path / "spool"


def ids(path: Path) -> dict[str, str]:
    """Return the pages' ids by what is in their images."""
    return {file.read_text(): file.stem for file in (path / "pages").iterdir()}


def finish(path: Path) -> tuple[list[str], list[str]]:
    """Read and deliver what is left; return what was read, and what the desk got."""
    read, got = [], []
    with opened(path) as spool:
        while (page := spool.next_unread()) is not None:
            read.append(spool.image(page).decode())
            spool.store_result(page, document(page))
        for sink in SINKS:
            while (delivery := spool.outbox.pending(sink)) is not None:
                if sink == "desk":
                    got.append(delivery.page_id)
                spool.outbox.delivered(delivery)
        assert spool.counts().undelivered == 0
    return read, got


def damage(path: Path, how: str) -> None:
    data = bytearray((path / "spool.db").read_bytes())
    if how == "header":
        data[:100] = b"no database" * 9 + b"!"
    elif how == "cut":
        del data[len(data) // 2 :]
    elif how == "empty":
        data.clear()
    elif how == "gone":
        (path / "spool.db").unlink()
        return
    else:
        # One block of a failing card, in the middle of the table of pages.
        start = data.find(b"watch", len(data) // 3) // 4096 * 4096
        data[start : start + 4096] = random.Random(7).randbytes(4096)
    (path / "spool.db").write_bytes(data)


@pytest.mark.parametrize("how", ["header", "cut", "block", "empty", "gone"])
def test_damage_is_refused_and_repaired(path: Path, how: str) -> None:
    before = ids(path)
    backup = path.with_name("backup")
    shutil.copytree(path, backup)
    damage(path, how)
    damaged = {file: file.read_bytes() for file in path.iterdir() if file.name == "spool.db"}
    for _ in range(2):
        with pytest.raises(SpoolDamagedError, match="Nothing was deleted; `repair` builds a new one"):
            opened(path)
    assert ids(path) == before
    assert all(file.read_bytes() == data for file, data in damaged.items() if how not in ("gone", "empty"))

    found = repair(path, SINKS)
    assert found.pages + found.adopted >= 60 - 40 * (how == "block")
    assert ids(path) == before  # nothing was deleted, and nothing has another id than before
    read, got = finish(path)
    unread = {str(i) for i in range(40, 60)}
    undelivered = {before[str(i)] for i in range(20, 40)}
    assert unread <= set(read)
    assert len(read) == len(set(read))
    assert undelivered <= set(got)
    assert len(got) == len(set(got))
    assert found.kept.is_dir()
    if how == "block":
        assert 0 < found.adopted < 60  # most rows were saved: less is read again than all

    shutil.rmtree(path)
    shutil.copytree(backup, path)
    assert set(finish(path)[0]) == unread  # the cause gone, everything is as it was


def test_a_whole_spool_is_not_changed_by_a_repair(path: Path) -> None:
    found = repair(path, SINKS)
    assert (found.pages, found.adopted, found.owed) == (60, 0, 0)
    assert repair(path, SINKS).kept.name == "damaged-2"
    read, got = finish(path)
    assert (len(read), len(got)) == (20, 40)


@pytest.mark.parametrize("step", range(5))
def test_an_interrupted_repair_can_be_repeated(path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """It ends at each of its steps in turn; the spool stays shut until the repair has been repeated."""
    damage(path, "block")
    before = ids(path)
    steps = [step]
    real = repair_module.sync_directory

    def ending(folder: Path) -> None:
        steps[0] -= 1
        if steps[0] < 0:
            raise KeyboardInterrupt
        real(folder)

    with monkeypatch.context() as patch:
        patch.setattr(repair_module, "sync_directory", ending)
        try:
            repair(path, SINKS)
        except KeyboardInterrupt:
            with pytest.raises(SpoolDamagedError) if step < 3 else contextlib.nullcontext():
                opened(path).close()
    found: Repaired = repair(path, SINKS)
    assert ids(path) == before
    read, _ = finish(path)
    assert {str(i) for i in range(40, 60)} <= set(read)
    assert found.pages + found.adopted >= 20


def test_a_spool_in_use_is_not_repaired(path: Path) -> None:
    with opened(path), pytest.raises(ScannerError, match="another process holds the spool"):
        repair(path, SINKS)


def test_damage_met_while_running_is_told(path: Path) -> None:
    with opened(path) as spool:
        with sqlite3.connect(path / "spool.db") as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        db.close()
        damage(path, "header")
        with spool._store.reading() as db:
            db.execute("PRAGMA shrink_memory")  # what is in memory is not read again
        for _ in range(2):
            with pytest.raises(SpoolDamagedError, match="reading failed, the spool's database is damaged"):
                spool.next_unread()
    repair(path, SINKS)
    assert {str(i) for i in range(40, 60)} <= set(finish(path)[0])
