"""A folder that others put images into -> one page a file, through inotify.

A file is taken when its writer closed it or it was renamed into the folder; one whose closing was not seen, once it has
not changed for a while. Taking is one rename into `.taken/`, under a name that stays the page's key, so that a newer
file of the same name is another page; it is deleted, or moved to `done/`, only after the spool has the page.
"""

import os
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Literal

from inotify_simple import INotify, flags
from pydantic import Field

from hwr_export.files import sync_directory, write_atomic
from hwr_export.scanner.sources import Arrived, Source
from hwr_export.scanner.sources.files import Identity, identify, read_whole, suffix_of
from hwr_export.spec import Strict

EVENTS = flags.CLOSE_WRITE | flags.MOVED_TO | flags.ONLYDIR | flags.DELETE_SELF | flags.MOVE_SELF
LOST = flags.IGNORED | flags.UNMOUNT | flags.DELETE_SELF | flags.MOVE_SELF  # the folder is no more where it was
TICK_MS = 200
RETRY_S = 1.0
UNFINISHED = (".part", ".tmp", ".temp", ".partial", ".crdownload", ".swp", "~")


class WatchConfig(Strict):
    """A folder that images are put into."""

    kind: Literal["watch"]
    name: str = Field("watch", pattern=r"^[a-z0-9][a-z0-9-]{0,30}$", description="Name in results and logs; unique.")
    folder: Path = Field(
        description="Folder to watch; subfolders, hidden files and names that end in .part, .tmp or ~ are left alone."
    )
    after: Literal["delete", "done"] = Field(
        "delete",
        description="What becomes of a file once the spool has its page: deleted, or moved to `done/` in the folder.",
    )
    keep_s: float = Field(
        604800.0, ge=0, description="Seconds after which what lies in `done/` and `rejected/` is deleted."
    )
    settle_s: float = Field(
        2.0, gt=0, description="Seconds for which a file whose closing was not seen must not change."
    )
    rescan_s: float = Field(
        30.0, gt=0, description="Seconds between looks at the whole folder, for file systems that tell nothing (NFS)."
    )
    max_image_mb: int = Field(64, ge=1, le=1024, description="A larger file goes to `rejected/`, unread.")


class WatchSource(Source):
    """The files of one folder. What is taken, done and rejected lies in it, so that moving a file is one rename."""

    def __init__(self, config: WatchConfig) -> None:
        super().__init__(config.name)
        self._config = config
        self._folder = config.folder
        self._taken = config.folder / ".taken"
        self._unsettled: dict[Path, tuple[Identity, float]] = {}

    def pages(self, stop: threading.Event) -> Generator[Arrived, None, None]:
        while not stop.is_set():
            try:
                with INotify() as notify:
                    notify.add_watch(self._folder, EVENTS)
                    yield from self._watched(notify, stop)
            except OSError as err:
                self.report("no-folder", f"{self._folder}: {err.strerror}")
                stop.wait(RETRY_S)

    def reject(self, key: str, image: bytes, reason: str) -> None:
        target = self._beside("rejected", key)
        if image:
            write_atomic(target, image)
        write_atomic(target.with_name(f"{target.name}.reason.txt"), f"{reason}\n".encode())

    def forget_images(self) -> int:
        folders = [self._folder / name for name in ("done", "rejected")]
        files = [path for folder in folders if folder.is_dir() for path in folder.iterdir()]
        old = [p for p in files if identify(p) is not None and time.time() - p.lstat().st_ctime > self._config.keep_s]
        for path in old:
            path.unlink()
        return len(old)

    def _watched(self, notify: INotify, stop: threading.Event) -> Iterator[Arrived]:
        """Yield what is in the folder and what comes, until the folder itself goes or `stop` is set."""
        self._taken.mkdir(exist_ok=True)
        self._unsettled.clear()
        looked = float("-inf")
        while not stop.is_set():
            yield from self._all_taken(stop)
            self.report("waiting")
            events = notify.read(timeout=TICK_MS)
            if any(event.mask & LOST for event in events):
                return
            for event in events:
                if event.name and _is_for_us(event.name):
                    self._take(self._folder / event.name, settled=False)
            overflow = any(event.mask & flags.Q_OVERFLOW for event in events)
            if overflow or time.monotonic() - looked >= self._config.rescan_s:
                self._look()
                looked = time.monotonic()
            for path in self._settled():
                self._take(path, settled=True)

    def _look(self) -> None:
        """Begin to wait for every file that is there, the oldest first."""
        names = [path for path in self._folder.iterdir() if _is_for_us(path.name)]
        found = [(identity, path) for path in names if (identity := identify(path)) is not None]
        for identity, path in sorted(found, key=lambda pair: (pair[0].modified_ns, pair[1].name)):
            self._unsettled.setdefault(path, (identity, time.monotonic()))

    def _settled(self) -> list[Path]:
        """Return the files that have not changed for long enough."""
        now = time.monotonic()
        settled = []
        for path, (seen, since) in list(self._unsettled.items()):
            identity = identify(path)
            if identity is None:
                del self._unsettled[path]
            elif identity != seen:
                self._unsettled[path] = (identity, now)
            elif now - since >= self._config.settle_s:
                settled.append(path)
        return settled

    def _take(self, path: Path, settled: bool) -> None:
        """Move a file to where nobody writes into it; it is waited for if it was created empty, to be filled later."""
        identity = identify(path)
        if identity is None:
            self._unsettled.pop(path, None)
        elif not settled and identity.size_bytes == 0:
            self._unsettled[path] = (identity, time.monotonic())
        else:
            self._unsettled.pop(path, None)
            # Time first: what was taken before a crash arrives in the order in which it was taken.
            path.rename(self._taken / f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}-{_plain(path.name)}")

    def _all_taken(self, stop: threading.Event) -> Iterator[Arrived]:
        """Yield what was taken and is not acknowledged, now or by a process before this one."""
        limit = self._config.max_image_mb << 20
        for path in sorted(self._taken.iterdir()):
            if stop.is_set():
                return
            try:
                file = read_whole(path, limit)
            except OSError as err:
                self.report("unreadable-file", f"{path}: {err.strerror}")
                stop.wait(RETRY_S)
                continue
            if file is None:  # written to although it was closed: at the next look
                continue
            self.report("receiving")
            key = path.name
            yield Arrived(self.name, key, file.image, suffix_of(key), self._acknowledge(key, file.size_bytes > limit))

    def _acknowledge(self, key: str, too_large: bool) -> Callable[[], None]:
        def acknowledge() -> None:
            path = self._taken / key
            if too_large:
                path.rename(self._beside("rejected", key))
                self.reject(key, b"", f"larger than the {self._config.max_image_mb} MB that max_image_mb allows")
            elif self._config.after == "done":
                path.rename(self._beside("done", key))
            else:
                path.unlink()
            sync_directory(self._taken)

        return acknowledge

    def _beside(self, folder: str, key: str) -> Path:
        (self._folder / folder).mkdir(exist_ok=True)
        return self._folder / folder / key


def _plain(name: str) -> str:
    """Return a name that is UTF-8 and leaves room for what is put before it; its suffix stays."""
    text = os.fsencode(name).decode("utf-8", "replace")
    suffix = Path(text).suffix.encode()[:40]
    return (text.removesuffix(Path(text).suffix).encode()[:150] + suffix).decode("utf-8", "ignore")


def _is_for_us(name: str) -> bool:
    return not name.startswith(".") and not name.lower().endswith(UNFINISHED)
