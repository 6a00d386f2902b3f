"""A folder: what is taken and when, and that nothing that lies in it is overlooked, doubled or overwritten."""

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from inotify_simple import Event, INotify, flags

from hwr_export.scanner.sources import Arrived
from hwr_export.scanner.sources.watch import WatchConfig, WatchSource
from tests.scanner.devices import until


class Taker:
    """Takes pages in a thread, as the service does, and acknowledges them if it should."""

    def __init__(self, source: WatchSource, acknowledge: bool = True) -> None:
        self.source, self.pages, self.stop = source, list[Arrived](), threading.Event()
        self._acknowledge = acknowledge
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        for arrived in self.source.pages(self.stop):
            if self._acknowledge:
                arrived.acknowledge()
            self.pages.append(arrived)

    def end(self) -> None:
        self.stop.set()
        self._thread.join()

    def images(self) -> list[bytes]:
        return [page.image for page in self.pages]


@pytest.fixture
def watch(tmp_path: Path) -> Iterator:
    folder = tmp_path / "in"
    folder.mkdir()
    takers: list[Taker] = []

    def start(acknowledge: bool = True, **changes: object) -> Taker:
        config = WatchConfig(kind="watch", folder=folder, **{"settle_s": 0.4, **changes})
        takers.append(Taker(WatchSource(config), acknowledge))
        until(lambda: takers[-1].source.condition.state in ("waiting", "no-folder", "receiving"))
        return takers[-1]

    start.folder = folder
    yield start
    for taker in takers:
        taker.end()


def put(path: Path, image: bytes) -> None:
    """Rename a whole file to where it goes."""
    part = path.parent.parent / f"{path.name}.made"
    part.write_bytes(image)
    part.rename(path)


def test_a_file_is_taken_when_it_is_closed_and_not_before(watch) -> None:
    taker = watch(settle_s=60)
    with (watch.folder / "a.png").open("wb") as file:
        file.write(b"first ")
        file.flush()
        time.sleep(0.5)
        assert not taker.pages
        file.write(b"second")
    until(lambda: taker.images() == [b"first second"])
    (page,) = taker.pages
    assert (page.source, page.suffix) == ("watch", ".png")
    assert page.key.endswith("-a.png")
    assert not (watch.folder / "a.png").exists()


def test_files_renamed_into_the_folder_and_files_from_before(watch) -> None:
    (watch.folder / "before.png").write_bytes(b"before")
    taker = watch()
    put(watch.folder / "later.png", b"later")
    until(lambda: sorted(taker.images()) == [b"before", b"later"])


def test_a_file_from_before_that_somebody_still_writes_is_left_until_it_is_still(watch) -> None:
    with (watch.folder / "a.png").open("wb") as file:
        taker = watch()
        for _ in range(8):
            file.write(b"x" * 10)
            file.flush()
            time.sleep(0.1)
            assert not taker.pages
    until(lambda: taker.images() == [b"x" * 80])


@pytest.mark.parametrize("name", [".hidden.png", "a.png.part", "a.tmp", "a.png~"])
def test_unfinished_names_folders_and_links_are_left_alone(watch, name: str) -> None:
    taker = watch()
    put(watch.folder / name, b"x")
    (watch.folder / "folder").mkdir()
    (watch.folder / "link.png").symlink_to("/etc/hostname")
    os.mkfifo(watch.folder / "pipe.png")
    put(watch.folder / "good.png", b"good")
    until(lambda: taker.images() == [b"good"])
    time.sleep(0.6)
    assert taker.images() == [b"good"]
    assert (watch.folder / name).exists()


def test_a_file_that_is_made_empty_is_waited_for_and_then_is_an_empty_page(watch) -> None:
    taker = watch()
    (watch.folder / "a.png").touch()
    time.sleep(0.1)
    (watch.folder / "a.png").write_bytes(b"content")
    (watch.folder / "b.png").touch()
    until(lambda: len(taker.pages) == 2)
    assert taker.images() == [b"content", b""]


def test_the_same_name_again_is_another_page(watch) -> None:
    taker = watch()
    for n in range(20):
        put(watch.folder / "scan.png", b"%d" % n)
        until(lambda: len(taker.pages) == n + 1)  # noqa: B023
    assert len({page.key for page in taker.pages}) == 20
    assert taker.images() == [b"%d" % n for n in range(20)]


def test_what_is_not_acknowledged_arrives_again_under_the_same_key(watch) -> None:
    taker = watch(acknowledge=False)
    put(watch.folder / "a.png", b"a")
    until(lambda: taker.pages)
    taker.end()
    again = watch()
    until(lambda: again.pages)
    again.end()
    assert {page.key for page in taker.pages} == {page.key for page in again.pages}
    assert len(again.pages) == 1


def test_done_files_are_kept_for_as_long_as_was_said(watch) -> None:
    taker = watch(after="done", keep_s=0.5)
    put(watch.folder / "a.png", b"a")
    until(lambda: taker.pages)
    (done,) = (watch.folder / "done").iterdir()
    assert done.read_bytes() == b"a"
    assert taker.source.forget_images() == 0
    time.sleep(0.6)
    assert taker.source.forget_images() == 1
    assert not done.exists()


def test_a_file_that_is_too_large_is_rejected_unread(watch) -> None:
    taker = watch(max_image_mb=1)
    put(watch.folder / "a.tif", b"x" * ((1 << 20) + 1))
    until(lambda: taker.images() == [b""])
    image, reason = sorted((watch.folder / "rejected").iterdir())
    assert image.stat().st_size == (1 << 20) + 1
    assert reason.read_text() == "larger than the 1 MB that max_image_mb allows\n"


def test_a_name_that_is_no_text_and_one_that_is_very_long(watch) -> None:
    taker = watch()
    for name in (os.fsdecode(b"\xff\xfe.png"), "ä" * 120 + ".png"):
        put(watch.folder / name[:100], b"x") if len(name) < 100 else (watch.folder / name).write_bytes(b"x")
    until(lambda: len(taker.pages) == 2)
    assert all(page.key.encode().decode() == page.key and page.suffix == ".png" for page in taker.pages)


def test_an_overflow_of_events_has_the_whole_folder_looked_at(watch, monkeypatch: pytest.MonkeyPatch) -> None:
    def overflown(self: INotify, timeout: int) -> list[Event]:
        time.sleep(timeout / 1000)
        return [Event(-1, int(flags.Q_OVERFLOW), 0, "")]

    monkeypatch.setattr(INotify, "read", overflown)
    taker = watch(rescan_s=3600)
    put(watch.folder / "a.png", b"a")
    until(lambda: taker.images() == [b"a"])


def test_a_folder_without_events_is_looked_at_now_and_then(watch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(INotify, "read", lambda self, timeout: time.sleep(timeout / 1000) or [])
    taker = watch(rescan_s=0.5)
    time.sleep(0.3)
    put(watch.folder / "a.png", b"a")
    until(lambda: taker.images() == [b"a"])


def test_a_folder_that_goes_and_comes_back_is_a_state_that_ends_by_itself(watch) -> None:
    taker = watch()
    (watch.folder / ".taken").rmdir()
    watch.folder.rmdir()
    until(lambda: taker.source.condition.state == "no-folder")
    assert "mount" in taker.source.condition.advice
    watch.folder.mkdir()
    until(lambda: taker.source.condition.state == "waiting")
    put(watch.folder / "a.png", b"a")
    until(lambda: taker.images() == [b"a"])


def test_many_files_at_once_all_arrive_once(watch) -> None:
    taker = watch()
    for n in range(500):
        put(watch.folder / f"{n}.png", b"%d" % n)
    until(lambda: len(taker.pages) >= 500, 60)
    time.sleep(0.6)
    assert sorted(taker.images()) == sorted(b"%d" % n for n in range(500))
