"""Killed at any point, the spool has every acknowledged page, whole, with one result, once in each sink."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from hwr_export.scanner import spool as spool_module
from hwr_export.scanner import store as store_module
from hwr_export.scanner.spool import Spool
from tests.conftest import ROOT
from tests.scanner.fakes import document

IMAGES = {"a": b"first" * 100, "b": b"second" * 100}


def test_dozens_of_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """Fifty kills at random points of 250 pages on their way through; inputs are compared with outputs."""
    (tmp_path / "inbox").mkdir()
    for i in range(250):
        (tmp_path / "inbox" / f"{i:03d}").write_text(f"image {i}")
    command = [sys.executable, "-m", "tests.scanner.kill_worker", str(tmp_path), "50", "7"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT, timeout=300)
    assert (done.returncode, done.stderr) == (0, "")
    assert int(done.stdout) > 24  # the others had finished everything before their time came
    data = b"".join(path.read_bytes() for path in sorted((tmp_path / "out").iterdir()))
    found = [json.loads(line) for line in data.splitlines()]
    assert Counter(line["page"]["key"] for line in found) == {f"{i:03d}": 1 for i in range(250)}
    assert all(line["fields"][0]["value"] == f"image {int(line['page']['key'])}" for line in found)
    assert len({line["page"]["id"] for line in found}) == 250
    assert list((tmp_path / "spool" / "pages").iterdir()) == []


class Moments:
    """Copies of the spool as a kill would leave it, one before each step that changes the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.taken: list[tuple[Path, set[str], set[str], set[str]]] = []
        self.acknowledged: set[str] = set()
        self.read: set[str] = set()
        self.delivered: set[str] = set()
        self._busy = False

    def take(self, *_: object) -> None:
        if self._busy:
            return
        self._busy = True
        copy = self.folder / f"copy-{len(self.taken):03d}"
        shutil.copytree(self.folder / "spool", copy)
        self.taken.append((copy, set(self.acknowledged), set(self.read), set(self.delivered)))
        self._busy = False


def opened(path: Path) -> Spool:
    return Spool(path, 100, 1 << 20, ("desk",), reserve_bytes=0)


def test_a_kill_before_any_step_leaves_each_page_whole_or_absent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moments = Moments(tmp_path)
    (tmp_path / "spool").mkdir()
    connect = store_module.connect

    def traced(path: Path) -> sqlite3.Connection:
        db = connect(path)
        db.set_trace_callback(moments.take)
        return db

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "connect", traced)
        for name in ("fsync", "replace", "unlink", "open"):
            real = getattr(os, name)
            patch.setattr(os, name, lambda *args, real=real, **kw: (moments.take(), real(*args, **kw))[1])
        with opened(tmp_path / "spool") as spool:
            for key, image in IMAGES.items():
                spool.add("watch", key, image, "png")
                moments.acknowledged.add(key)
            page = spool.next_unread()
            assert page is not None
            spool.store_result(page, document(page))
            moments.read.add(page.key)
            spool.forget_images(0)
            delivery = spool.outbox.pending("desk")
            assert delivery is not None
            spool.outbox.delivered(delivery)
            moments.delivered.add(delivery.document["page"]["key"])
            spool.forget_images(0)

    assert len(moments.taken) > 40
    for copy, acknowledged, read, delivered in moments.taken:
        with opened(copy) as spool:
            counts = spool.counts()
            waiting = counts.unread + counts.undelivered
            # One step may be done and not yet answered for.
            assert waiting + counts.sinks["desk"].delivered in {len(acknowledged), len(acknowledged) + 1}
            offered = [spool.add("watch", key, image, "png") for key, image in IMAGES.items()]  # as sources do
            assert {page.key for page in offered if not page.read}.isdisjoint(read)
            while (waits := spool.next_unread()) is not None:
                assert spool.image(waits) == IMAGES[waits.key]
                spool.store_result(waits, document(waits))
            got = []
            while (due := spool.outbox.pending("desk")) is not None:
                got.append(due.document["page"]["key"])
                spool.outbox.delivered(due)
            assert len(got) == len(set(got))
            assert set(got).isdisjoint(delivered)
            assert spool.counts().sinks["desk"].delivered == len(IMAGES)
            spool.forget_images(0)
            assert list((copy / "pages").iterdir()) == []


def test_the_order_of_what_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File flushed, named, folder flushed, and only then the row: a power cut finds no row without its file."""
    events: list[str] = []
    connect = store_module.connect

    def traced(path: Path) -> sqlite3.Connection:
        db = connect(path)
        db.set_trace_callback(lambda statement: events.append(statement.split()[0]))
        return db

    monkeypatch.setattr(store_module, "connect", traced)
    with opened(tmp_path / "spool") as spool:
        assert store_module.connect is traced
        with spool._store.reading() as db:
            assert db.execute("PRAGMA synchronous").fetchone() == (2,)
            assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
            assert db.execute("PRAGMA secure_delete").fetchone() == (1,)
        fsync, replace = os.fsync, os.replace
        pages = tmp_path / "spool" / "pages"

        def flushed(fd: int) -> None:
            what = Path(f"/proc/self/fd/{fd}").readlink()
            events.append("folder" if what == pages else "file" if what.parent == pages else what.name)
            fsync(fd)

        monkeypatch.setattr(os, "fsync", flushed)
        monkeypatch.setattr(os, "replace", lambda *args: (events.append("name"), replace(*args))[1])
        events.clear()
        spool.add("watch", "a", b"x", "png")
        assert [event for event in events if event != "SELECT"] == [
            "file", "name", "folder", "BEGIN", "INSERT", "COMMIT"
        ]  # fmt: skip


def test_leftovers_of_a_kill_are_swept(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        page = spool.add("watch", "a", b"x", "png")
        done = spool.add("watch", "b", b"y", "png")
        for _ in range(2):
            unread = spool.next_unread()
            assert unread is not None
            if unread.id == done.id:
                break
            spool.store_result(unread, document(unread))
    pages = tmp_path / "spool" / "pages"
    (pages / f"{'0' * 32}.png").write_bytes(b"named, and no row")
    (pages / f".{'1' * 32}.png.abcd.part").write_bytes(b"not even named")
    page.path.unlink()  # read, and on its way to be forgotten
    with opened(tmp_path / "spool") as spool:
        assert [path.name for path in pages.iterdir()] == [done.path.name]
        assert spool.counts().images == 1
        assert spool.next_unread() == done


def test_a_page_being_written_is_not_swept_when_the_database_is_opened_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One thread has its image on the disk, another meets a failing disk: the first one's page stays."""
    write = spool_module.write_atomic
    with opened(tmp_path / "spool") as spool:

        def then_opened_anew(path: Path, data: bytes) -> None:
            write(path, data)
            spool._store._drop()

        monkeypatch.setattr(spool_module, "write_atomic", then_opened_anew)
        page = spool.add("watch", "a", b"x", "png")
        assert spool.image(page) == b"x"
