"""The spool's database: one SQLite file whose commits are on the disk before they return.

WAL and synchronous=FULL make a commit whole and durable; secure_delete overwrites what was deleted. After a failed
flush nobody knows what is on the disk, so the connection is thrown away and the next use reads the file anew.
"""

import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from hwr_export.errors import ScannerError
from hwr_export.files import sync_directory
from hwr_export.scanner.clock import Clock, Elapsed
from hwr_export.scanner.faults import SpoolDiskError, database_fault

DATABASE = "spool.db"
REPAIRED = "spool.db.repaired"  # on its way to replace the database
SCHEMA = 1
BUSY_S = 30.0

# read_s: the count of seconds (clock.Elapsed) at which the result was stored; NULL while unread.
# document: the result; NULL while unread and again once every sink has it.
# key: what the source calls the page; empty once nothing more is to be done with it. The fingerprint stays.
_TABLES = """
CREATE TABLE elapsed (total_s REAL NOT NULL, steady_s REAL NOT NULL, boot TEXT NOT NULL) STRICT;
CREATE TABLE pages (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, fingerprint TEXT NOT NULL UNIQUE,
    source TEXT NOT NULL, key TEXT NOT NULL, sha256 TEXT NOT NULL, suffix TEXT NOT NULL, size_bytes INTEGER NOT NULL,
    received_at TEXT NOT NULL, has_image INTEGER NOT NULL DEFAULT 1, read_s REAL, document TEXT) STRICT;
CREATE INDEX unread ON pages (seq) WHERE read_s IS NULL;
CREATE INDEX undelivered ON pages (seq) WHERE document IS NOT NULL;
CREATE INDEX images ON pages (size_bytes) WHERE has_image;
CREATE INDEX named ON pages (seq) WHERE key <> '';
CREATE TABLE sinks (name TEXT PRIMARY KEY, delivered INTEGER NOT NULL DEFAULT 0) STRICT, WITHOUT ROWID;
CREATE TABLE deliveries (
    sink TEXT NOT NULL REFERENCES sinks, page INTEGER NOT NULL REFERENCES pages, dead INTEGER NOT NULL DEFAULT 0,
    attempts INTEGER NOT NULL DEFAULT 0, overtaken INTEGER NOT NULL DEFAULT 0, seen INTEGER NOT NULL DEFAULT 0,
    error TEXT, PRIMARY KEY (sink, page)) STRICT, WITHOUT ROWID;
CREATE INDEX next_delivery ON deliveries (sink, dead, attempts, page);
CREATE INDEX deliveries_of_page ON deliveries (page);
"""


class Store:
    """One connection that threads share in turn, opened anew after a failure of the disk."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        before_open: Callable[[], None],
        after_open: Callable[[sqlite3.Connection], None],
    ) -> None:
        self.directory = directory
        self.clock = clock
        self._before_open, self._after_open = before_open, after_open
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._elapsed = Elapsed(0.0, 0.0, "")
        self._closed = False
        with self.reading("opening"):
            pass

    def close(self) -> None:
        """Let go of the file for good."""
        with self._lock:
            self._closed = True
            self._drop()

    def elapsed_s(self) -> float:
        """Return the count of seconds that retention goes by."""
        return self._elapsed.now(self.clock).total_s

    @contextlib.contextmanager
    def reading(self, doing: str = "reading") -> Iterator[sqlite3.Connection]:
        """Hand out the connection for statements that change nothing."""
        with self._lock, self._told(doing):
            yield self._connected()

    @contextlib.contextmanager
    def writing(self, doing: str) -> Iterator[sqlite3.Connection]:
        """Hand out the connection for one transaction: when the block is left it is on the disk, or nothing is."""
        with self._lock, self._told(doing):
            db = self._connected()
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                with contextlib.suppress(sqlite3.Error):  # what made it fail is being raised
                    db.execute("ROLLBACK")
                raise

    def save_elapsed(self, db: sqlite3.Connection) -> None:
        """Write down the count, within a transaction."""
        now = self._elapsed.now(self.clock)
        db.execute("UPDATE elapsed SET total_s = ?, steady_s = ?, boot = ?", (now.total_s, now.steady_s, now.boot))

    def wipe_log(self) -> None:
        """Move the log into the database and cut it to nothing: it holds old copies of what was deleted since."""
        with self.reading("emptying the log") as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # where another process reads, the next call does it

    @contextlib.contextmanager
    def _told(self, doing: str) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as err:
            fault = database_fault(err, self.directory, doing)
            if fault is None:
                raise
            if not (isinstance(fault, SpoolDiskError) and fault.certain):
                self._drop()
            raise fault from err

    def _drop(self) -> None:
        db, self._db = self._db, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):  # it is not trusted any more; opening anew says what is wrong
                db.close()

    def _connected(self) -> sqlite3.Connection:
        if self._closed:
            raise ScannerError(f"{self.directory}: the spool is closed")
        if self._db is None:
            self._before_open()
            db = connect(self.directory / DATABASE)
            try:
                self._prepare(db)
                self._after_open(db)
            except BaseException:
                db.close()
                raise
            self._db = db
        return self._db

    def _prepare(self, db: sqlite3.Connection) -> None:
        """Check the file, make the tables where there are none, and write: a disk that refuses is met here."""
        found = [row[0] for row in db.execute("PRAGMA quick_check(1)")]
        if found != ["ok"]:
            raise sqlite3.DatabaseError(f"malformed: {found[0]}")
        create_tables(db, self.directory)
        db.execute("BEGIN IMMEDIATE")
        self._elapsed = Elapsed(*db.execute("SELECT total_s, steady_s, boot FROM elapsed").fetchone()).now(self.clock)
        self.save_elapsed(db)
        db.execute("COMMIT")


def connect(path: Path) -> sqlite3.Connection:
    """Open the file as every process must, with durable commits and nothing left of what was deleted."""
    db = sqlite3.connect(path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
    try:
        for pragma in ("journal_mode = WAL", "synchronous = FULL", "secure_delete = ON", "foreign_keys = ON"):
            db.execute(f"PRAGMA {pragma}")
        db.execute("PRAGMA temp_store = MEMORY")
    except BaseException:
        db.close()
        raise
    return db


def create_tables(db: sqlite3.Connection, directory: Path) -> None:
    """Make the tables of an empty file; refuse one that a later version made."""
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version > SCHEMA:
        raise ScannerError(
            f"{directory}: the spool was written by a later version (schema {version}, this one knows {SCHEMA}); "
            "install that version, or empty the spool with it"
        )
    if version == SCHEMA:
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        for statement in _TABLES.strip().split(";\n"):
            db.execute(statement)
        db.execute("INSERT INTO elapsed VALUES (0, 0, '')")
        db.execute(f"PRAGMA user_version = {SCHEMA}")
        db.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            db.execute("ROLLBACK")
        raise
    sync_directory(directory)
