"""A disk that is full, read-only or fails: a clear state, nothing lost, and work goes on when the cause is gone."""

import contextlib
import errno
import resource
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from hwr_export.errors import ScannerError
from hwr_export.scanner.faults import SpoolDiskError
from hwr_export.scanner.spool import Page, Spool
from tests.scanner.fakes import document

SINKS = ("desk",)


def opened(path: Path, reserve_bytes: int = 0) -> Spool:
    return Spool(path, 1000, 1 << 30, SINKS, reserve_bytes=reserve_bytes)


def read_and_deliver(spool: Spool) -> list[str]:
    """Do all that is to be done, and return the pages that were delivered."""
    found = []
    while (page := spool.next_unread()) is not None:
        assert spool.image(page)
        spool.store_result(page, document(page))
        spool.forget_images(0)
    while (delivery := spool.outbox.pending("desk")) is not None:
        found.append(delivery.page_id)
        spool.outbox.delivered(delivery)
    return found


def files(path: Path) -> list[str]:
    return sorted(file.name for file in (path / "pages").iterdir())


@contextlib.contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Let no file grow beyond a size; Python has the signal that goes with it ignored."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def fill(ballast: Path) -> None:
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path | None]:
    """Return a file system of 4 MB of its own, or None where this process may not mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], check=False, capture_output=True)
    yield None if mounted.returncode else disk
    if not mounted.returncode:
        subprocess.run(["umount", disk], check=True)


def test_a_disk_that_fills_is_worked_off(small_disk: Path | None, tmp_path: Path) -> None:
    """Pages come until the reserve is reached; results and deliveries still work, and make room for more."""
    reserve_bytes = 1 << 20
    path = (small_disk or tmp_path) / "spool"
    limit = contextlib.nullcontext() if small_disk else files_of_at_most(90_000)
    with opened(path, reserve_bytes if small_disk else 0) as spool:
        pages: list[Page] = []
        with limit:
            with pytest.raises(SpoolDiskError, match=r"disk-full|less than 1,048,576 free") as caught:
                while True:
                    size = 80_000 if small_disk or len(pages) < 5 else 100_000
                    pages.append(spool.add("watch", str(len(pages)), bytes([len(pages)]) * size, "pgm"))
            assert caught.value.state == "disk-full"
            assert len(pages) >= 5
            assert files(path) == sorted(page.path.name for page in pages)
            if small_disk:
                assert read_and_deliver(spool) == [page.id for page in pages]
        last = spool.add("watch", "last", b"x" * 100_000, "pgm")
        assert read_and_deliver(spool)[-1] == last.id


def test_a_disk_that_others_fill_stops_everything_and_loses_nothing(small_disk: Path | None, tmp_path: Path) -> None:
    path = (small_disk or tmp_path) / "spool"
    ballast = path.parent / "ballast"
    with opened(path) as spool:
        pages = [spool.add("watch", str(i), b"x", "png") for i in range(3)]
        spool.store_result(pages[0], document(pages[0]))
        if small_disk:
            fill(ballast)
        with contextlib.nullcontext() if small_disk else files_of_at_most(0):
            for _ in range(3):
                with pytest.raises(
                    SpoolDiskError, match=r"keeping a page failed|would leave less than 0 free"
                ) as caught:
                    spool.add("watch", "new", b"x" * 50_000, "png")
                assert caught.value.state == "disk-full"
                delivery = spool.outbox.pending("desk") if small_disk else None
                with pytest.raises(SpoolDiskError, match=r"Nothing is lost; (free some space|look into)"):
                    while True:  # until the room that the log has left is used up
                        if delivery is None:
                            spool.store_result(pages[1], document(pages[1], "7" * 5000))
                        else:
                            spool.outbox.retry_later(delivery, "x" * 50_000)
            if small_disk:
                assert spool.next_unread() == pages[1]  # what is there can still be looked at
        assert files(path) == sorted(page.path.name for page in pages)
        ballast.unlink(missing_ok=True)
        pages.append(spool.add("watch", "new", b"x" * 50_000, "png"))
        assert sorted(read_and_deliver(spool)) == sorted(page.id for page in pages)


def test_a_full_disk_at_the_start_is_told(small_disk: Path | None, tmp_path: Path) -> None:
    path = (small_disk or tmp_path) / "spool"
    with opened(path) as spool:
        page = spool.add("watch", "1", b"x", "png")
    ballast = path.parent / "ballast"
    if small_disk:
        fill(ballast)
    with (
        contextlib.nullcontext() if small_disk else files_of_at_most(0),
        pytest.raises(SpoolDiskError, match=r"opening failed|opening the spool failed"),
    ):
        opened(path)
    ballast.unlink(missing_ok=True)
    with opened(path) as spool:
        assert read_and_deliver(spool) == [page.id]


def test_a_flush_that_fails_leaves_a_page_or_none(tmp_path: Path) -> None:
    """The database cannot grow: SQLite calls it an I/O error, and what was being done is in doubt until opened anew."""
    path = tmp_path / "spool"
    with opened(path) as spool:
        kept = []
        with files_of_at_most(60_000), pytest.raises(SpoolDiskError) as caught:
            while True:
                kept.append(spool.add("watch", str(len(kept)), b"x", "png"))
        assert caught.value.state == "disk-error"
        assert not caught.value.certain
        again = spool.add("watch", str(len(kept)), b"x", "png")
        assert files(path) == sorted(page.path.name for page in [*kept, again])
        assert read_and_deliver(spool) == [page.id for page in [*kept, again]]


@pytest.mark.parametrize(
    ("number", "state"), [(errno.EROFS, "read-only"), (errno.EDQUOT, "disk-full"), (errno.EIO, "disk-error")]
)
def test_images_that_cannot_be_written_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, state: str
) -> None:
    path = tmp_path / "spool"

    def refused(*args: object, **kwargs: object) -> None:
        raise OSError(number, "refused")

    with opened(path) as spool:
        page = spool.add("watch", "1", b"first", "png")
        for module, name in ((tempfile, "mkstemp"), (Path, "replace")):
            with monkeypatch.context() as patch:
                patch.setattr(module, name, refused)
                with pytest.raises(SpoolDiskError, match=f"keeping a page failed \\({state}: ") as caught:
                    spool.add("watch", "2", b"second", "png")
            assert caught.value.state == state
            assert files(path) == [page.path.name]
        spool.store_result(page, document(page))
        with monkeypatch.context() as patch:
            patch.setattr(Path, "unlink", refused)
            with pytest.raises(SpoolDiskError, match="deleting images failed"):
                spool.forget_images(0)
        assert spool.counts().images == 1  # not counted as deleted while it is there
        assert spool.forget_images(0) == 1
        assert files(path) == []


def test_a_read_only_disk_is_told_and_left_as_it_is(small_disk: Path | None, tmp_path: Path) -> None:
    path = (small_disk or tmp_path) / "spool"
    with opened(path) as spool:
        page = spool.add("watch", "1", b"first", "png")
    if small_disk is None:
        path.chmod(0o500)  # whoever may not mount is bound by this
    else:
        subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    try:
        with pytest.raises(SpoolDiskError, match="make it writable again") as caught:
            opened(path)
        assert caught.value.state == "read-only"
    finally:
        if small_disk is None:
            path.chmod(0o700)
        else:
            subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    with opened(path) as spool:
        assert read_and_deliver(spool) == [page.id]


def test_errors_of_the_program_are_not_taken_for_the_disk(tmp_path: Path) -> None:
    spool = opened(tmp_path / "spool")
    page = spool.add("watch", "1", b"x", "png")
    with pytest.raises(ValueError, match="not JSON compliant"):
        spool.store_result(page, document(page) | {"confidence": float("nan")})
    spool.close()
    with pytest.raises(ScannerError, match="the spool is closed"):
        spool.next_unread()
