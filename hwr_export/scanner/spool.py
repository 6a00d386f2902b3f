"""Every page, durable from before it is acknowledged until each sink has its result.

Image bytes in, pages to read out; results in, deliveries out (outbox.py). An image is a file that is whole and on the
disk before its row commits; a page gets one result; one process at a time holds the directory.
"""

import contextlib
import fcntl
import json
import os
import re
import sqlite3
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from pydantic import Field
from typing_extensions import Self

from hwr_export.errors import ScannerError
from hwr_export.files import sha256_bytes, sync_directory, write_atomic
from hwr_export.scanner.clock import Clock, system_clock
from hwr_export.scanner.faults import SpoolDamagedError, SpoolDiskError, SpoolFullError, disk_fault
from hwr_export.scanner.outbox import Outbox, SinkCounts
from hwr_export.scanner.store import DATABASE, REPAIRED, Store
from hwr_export.spec import Strict

PAGES = "pages"
# Pages of which a fingerprint is kept, so that a source may offer one again after a crash: about 300 bytes each.
REMEMBERED = 50_000
# What stays free on the disk for results and acknowledgements, so that a full disk can be worked off.
RESERVE_BYTES = 64 << 20
_SAVE_CLOCK_S = 60.0
_SUFFIX = re.compile(r"[a-z0-9]{1,8}")
_PAGE = "SELECT seq, id, source, key, sha256, suffix, received_at, read_s FROM pages "
# Nothing more is to be done with such a page.
_DONE = "NOT has_image AND read_s IS NOT NULL AND document IS NULL"


class SpoolConfig(Strict):
    """Where pages wait, and how many."""

    directory: Path = Field(description="Folder of the spool's own, on a disk that survives a restart.")
    max_pages: int = Field(10_000, ge=1, description="Pages not read or not delivered, above which sources wait.")
    max_bytes: int = Field(2 << 30, ge=1, description="Bytes of images, above which sources wait.")
    keep_images_s: float = Field(
        0.0, ge=0, description="Seconds after its reading for which a page's image is kept; then it is deleted."
    )


@dataclass(frozen=True)
class Page:
    id: str
    source: str
    key: str
    sha256: str
    path: Path
    received_at: str
    read: bool


@dataclass(frozen=True)
class SpoolCounts:
    unread: int
    undelivered: int
    images: int
    image_bytes: int
    sinks: dict[str, SinkCounts]


class Spool:
    """Several threads of one process may use it at once."""

    def __init__(
        self,
        directory: Path,
        max_pages: int,
        max_bytes: int,
        sinks: tuple[str, ...] = (),
        *,
        clock: Clock | None = None,
        reserve_bytes: int = RESERVE_BYTES,
    ) -> None:
        self.directory = directory
        self.max_pages, self.max_bytes = max_pages, max_bytes
        self.sinks = sinks  # may be set anew: who gets the results from now on
        self._reserve_bytes = reserve_bytes
        self._pages = directory / PAGES
        self._arriving: dict[str, int] = {}  # id -> bytes of pages whose row is not committed yet
        self._arriving_lock = threading.Lock()
        self._listeners: tuple[Callable[[], None], ...] = ()
        try:
            self._pages.mkdir(mode=0o700, parents=True, exist_ok=True)
            sync_directory(directory)
            sync_directory(directory.parent)
            self._lock = locked(directory / "lock")
            # For nobody else to read, and so are the files that SQLite puts beside it.
            os.close(os.open(directory / DATABASE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        except OSError as err:
            raise disk_fault(err, directory, "opening the spool") from err
        try:
            self._store = Store(directory, clock or system_clock(), self._refuse_leftovers, self._sweep)
        except BaseException:
            self._lock.close()
            raise
        self.outbox = Outbox(self._store)
        self._saved_s = self._store.elapsed_s()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the database and let another process in."""
        self._store.close()
        self._lock.close()

    def subscribe(self, listener: Callable[[], None]) -> None:
        """Call `listener` after each stored result, in the thread that stored it."""
        self._listeners = (*self._listeners, listener)

    def unsubscribe(self, listener: Callable[[], None]) -> None:
        """Call it no more."""
        self._listeners = tuple(other for other in self._listeners if other != listener)

    def add(self, source: str, key: str, image: bytes, suffix: str) -> Page:
        """Keep a page; when this returns it survives a power cut and may be acknowledged.

        The same image under the same source and key is the page that is there already, read or not.

        Raises:
            SpoolFullError: No room; offer it again later.
            SpoolDiskError: The disk refused; nothing was kept. Offer it again later.
        """
        suffix = suffix.removeprefix(".").lower()
        if not _SUFFIX.fullmatch(suffix):
            raise ScannerError(f"{suffix!r} is no file suffix: one to eight letters and digits were expected")
        source, key = _storable(source), _storable(key)
        sha256 = sha256_bytes(image)
        fingerprint = fingerprint_of(source, key, sha256)
        with self._store.reading() as db:
            known = self._known(db, fingerprint, key)
        if known is not None:
            return known
        page_id = uuid.uuid4().hex
        path = self._pages / f"{page_id}.{suffix}"
        page = Page(page_id, source, key, sha256, path, self._store.clock.stamp(), read=False)
        with self._room(page_id, len(image)):
            try:
                self._refuse_below_reserve(len(image))
                write_atomic(path, image)
            except OSError as err:
                _remove_quietly(path)
                raise disk_fault(err, self.directory, "keeping a page") from err
            try:
                with self._store.writing("keeping a page") as db:
                    db.execute(
                        "INSERT INTO pages (id, fingerprint, source, key, sha256, suffix, size_bytes, received_at) "
                        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (page_id, fingerprint, source, key, sha256, suffix, len(image), page.received_at),
                    )
            except sqlite3.IntegrityError:
                # Another thread was given the same page at the same time.
                _remove_quietly(path)
                with self._store.reading() as db:
                    known = self._known(db, fingerprint, key)
                if known is None:
                    raise
                return known
            except SpoolDiskError as err:
                # In doubt the row may turn out to be there, and it needs its file; opening anew tells.
                if err.certain:
                    _remove_quietly(path)
                raise
        return page

    def next_unread(self) -> Page | None:
        """Return the page that has waited longest for its result; the same one until it has it."""
        with self._store.reading() as db:
            row = db.execute(_PAGE + "WHERE read_s IS NULL ORDER BY seq LIMIT 1").fetchone()
        return None if row is None else self._page(row)

    def image(self, page: Page) -> bytes:
        """Return a page's image as it was received.

        Raises:
            ScannerError: The file is gone or not the same any more: the page cannot be read, now or later.
        """
        try:
            data = page.path.read_bytes()
        except FileNotFoundError as err:
            raise ScannerError(f"{page.path.name}: the image is gone from the spool; scan the page again") from err
        except OSError as err:
            raise disk_fault(err, self.directory, "reading an image") from err
        if sha256_bytes(data) != page.sha256:
            raise ScannerError(f"{page.path.name}: the image changed on the disk (failing card?); scan the page again")
        return data

    def store_result(self, page: Page, result: dict[str, Any]) -> bool:
        """Store a page's one result and owe it to every sink; False, and nothing changed, where it has one."""
        if result.get("page", {}).get("id") != page.id:
            raise ScannerError(
                f"{page.id}: the result does not name this page under `page.id`, where sinks look for it"
            )
        document = json.dumps(result, separators=(",", ":"), allow_nan=False)
        with self._store.writing("storing a result") as db:
            found = db.execute("SELECT seq, read_s FROM pages WHERE id = ?", (page.id,)).fetchone()
            if found is None:
                raise ScannerError(f"{page.id}: this spool holds no such page")
            seq, read_s = found
            if read_s is not None:
                return False
            db.execute(
                "UPDATE pages SET read_s = ?, document = ? WHERE seq = ?", (self._store.elapsed_s(), document, seq)
            )
            self.outbox.put(db, seq, self.sinks)
            self._store.save_elapsed(db)
        for listener in self._listeners:
            listener()
        return True

    def forget_images(self, older_than_s: float) -> int:
        """Delete images of pages that were read that long ago, and every trace of what no sink needs any more.

        Call it about once a minute. Time counts while the machine runs, whatever its wall clock is set to.

        Returns:
            How many images were deleted.
        """
        with self._store.reading() as db:
            rows = db.execute(
                _PAGE + "WHERE has_image AND read_s IS NOT NULL AND read_s <= ?",
                (self._store.elapsed_s() - older_than_s,),
            ).fetchall()
        try:
            # Files first: that works on a full disk too, and a row without its file is put right below or at opening.
            for row in rows:
                self._page(row).path.unlink(missing_ok=True)
            if rows:
                sync_directory(self._pages)
        except OSError as err:
            raise disk_fault(err, self.directory, "deleting images") from err
        self._forget_rows([row[0] for row in rows])
        self._store.wipe_log()
        return len(rows)

    def counts(self) -> SpoolCounts:
        """Count what waits, for whom, and how much room it takes."""
        return counted(self._store, self.outbox, self.sinks)

    def _refuse_leftovers(self) -> None:
        """Refuse images whose database is gone: what has no row is deleted, and here nothing has."""
        database = self.directory / DATABASE
        empty = not database.exists() or not database.stat().st_size
        if (self.directory / REPAIRED).exists() or (empty and any(map(_is_image, self._pages.iterdir()))):
            raise SpoolDamagedError(
                f"{self.directory}: there are images and no database, or a repair was interrupted. "
                "Nothing was deleted; `repair` builds a new one from what can be read, and from the images"
            )

    def _forget_rows(self, seqs: list[int]) -> None:
        with self._store.reading() as db:
            (finished,) = db.execute(f"SELECT EXISTS (SELECT 1 FROM pages WHERE key <> '' AND {_DONE})").fetchone()
        if not (seqs or finished or self._store.elapsed_s() - self._saved_s >= _SAVE_CLOCK_S):
            return  # an idle device does not wear its card
        with self._store.writing("forgetting pages") as db:
            db.executemany("UPDATE pages SET has_image = 0 WHERE seq = ?", [(seq,) for seq in seqs])
            db.execute(f"UPDATE pages SET key = '' WHERE key <> '' AND {_DONE}")
            db.execute(f"DELETE FROM pages WHERE seq <= (SELECT max(seq) FROM pages) - ? AND {_DONE}", (REMEMBERED,))
            self._store.save_elapsed(db)
        self._saved_s = self._store.elapsed_s()

    @contextlib.contextmanager
    def _room(self, page_id: str, size_bytes: int) -> Iterator[None]:
        """Hold room for a page while it is being written."""
        with self._arriving_lock:
            with self._store.reading() as db:
                unread, undelivered, _, image_bytes = _load(db)
            pages = unread + undelivered + len(self._arriving)
            held_bytes = image_bytes + sum(self._arriving.values())
            if pages >= self.max_pages or held_bytes + size_bytes > self.max_bytes:
                raise SpoolFullError(
                    f"{self.directory}: no room for a page of {size_bytes:,} bytes. {unread} pages wait to be read and "
                    f"{undelivered} to be delivered, of at most {self.max_pages}; images take {held_bytes:,} bytes of "
                    f"{self.max_bytes:,}. Look for a sink that is down or has dead letters, or raise the limits"
                )
            self._arriving[page_id] = size_bytes
        try:
            yield
        finally:
            with self._arriving_lock:
                del self._arriving[page_id]

    def _refuse_below_reserve(self, size_bytes: int) -> None:
        found = os.statvfs(self._pages)
        if found.f_bavail * found.f_frsize - size_bytes < self._reserve_bytes:
            raise SpoolDiskError(
                f"{self.directory}: a page of {size_bytes:,} bytes would leave less than {self._reserve_bytes:,} free, "
                "which results and deliveries need; free some space: work goes on by itself",
                "disk-full",
            )

    def _known(self, db: sqlite3.Connection, fingerprint: str, key: str) -> Page | None:
        row = db.execute(_PAGE + "WHERE fingerprint = ?", (fingerprint,)).fetchone()
        return None if row is None else self._page((*row[:3], key, *row[4:]))

    def _page(self, row: tuple[Any, ...]) -> Page:
        _, page_id, source, key, sha256, suffix, received_at, read_s = row
        path = self._pages / f"{page_id}.{suffix}"
        return Page(page_id, source, key, sha256, path, received_at, read=read_s is not None)

    def _sweep(self, db: sqlite3.Connection) -> None:
        """Make files and rows agree after whatever ended the last use of the database.

        A file without a row was never acknowledged, and its source offers it again. A read page whose file is gone was
        being forgotten. An unread page whose file is gone stays: somebody has to hear of it (`image`).
        """
        rows = {f"{row[1]}.{row[5]}": row for row in db.execute(_PAGE + "WHERE has_image")}
        try:
            files = {path.name for path in self._pages.iterdir()}
            for name in files - rows.keys():
                # mkstemp's names begin with a dot and carry the page's
                if name.lstrip(".").partition(".")[0] not in self._arriving:
                    (self._pages / name).unlink(missing_ok=True)
            sync_directory(self._pages)
        except OSError as err:
            raise disk_fault(err, self.directory, "tidying the spool") from err
        gone = [(row[0],) for name, row in rows.items() if name not in files and row[7] is not None]
        if gone:
            db.execute("BEGIN IMMEDIATE")
            db.executemany("UPDATE pages SET has_image = 0 WHERE seq = ?", gone)
            db.execute("COMMIT")


def counted(store: Store, outbox: Outbox, sinks: tuple[str, ...] = ()) -> SpoolCounts:
    """Count what a database holds."""
    with store.reading() as db:
        unread, undelivered, images, image_bytes = _load(db)
    return SpoolCounts(unread, undelivered, images, image_bytes, outbox.counts(sinks))


def fingerprint_of(source: str, key: str, sha256: str) -> str:
    """Return what tells a page from every other, for as long as it may be offered again."""
    return sha256_bytes(f"{source}\0{key}\0{sha256}".encode())


def locked(path: Path) -> IO[str]:
    """Take the directory for this process; the kernel gives it back when the process ends, however it ends."""
    file = path.open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as err:
        file.close()
        raise ScannerError(
            f"{path.parent}: another process holds the spool; stop it, or give this one its own"
        ) from err
    return file


def _storable(text: str) -> str:
    """Return text that can be stored and sent: bytes of a file name that are no UTF-8 are spelt out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _load(db: sqlite3.Connection) -> tuple[int, int, int, int]:
    """Pages unread, pages undelivered (dead letters among them), images, their bytes."""
    row: tuple[int, int, int, int] = db.execute(
        "SELECT (SELECT count(*) FROM pages WHERE read_s IS NULL), "
        "(SELECT count(*) FROM pages WHERE document IS NOT NULL), "
        "(SELECT count(*) FROM pages WHERE has_image), "
        "(SELECT coalesce(sum(size_bytes), 0) FROM pages WHERE has_image)"
    ).fetchone()
    return row


def _is_image(path: Path) -> bool:
    return not path.name.startswith(".")


def _remove_quietly(path: Path) -> None:
    """Remove a file that has no row; what cannot be removed now goes when the spool is opened next."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)
