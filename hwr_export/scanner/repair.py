"""A damaged spool -> one that opens, from what can still be read of the database and from the images.

The damaged files are kept in a folder beside. Where nobody knows whether a page was read, or a result received, it is
read or sent again under the same id: nothing is lost, and receivers tell by the id. It can be interrupted and repeated.
"""

import contextlib
import os
import re
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwr_export.files import sha256_file, sync_directory
from hwr_export.scanner.clock import system_clock
from hwr_export.scanner.faults import disk_fault
from hwr_export.scanner.spool import PAGES, fingerprint_of, locked
from hwr_export.scanner.store import DATABASE, REPAIRED, connect, create_tables

_LOGS = (f"{DATABASE}-wal", f"{DATABASE}-shm")
_IMAGE = re.compile(r"([0-9a-f]{32})\.([a-z0-9]{1,8})")
_ORDER = {"elapsed": "total_s", "sinks": "name", "pages": "seq", "deliveries": "sink {0}, page"}


@dataclass(frozen=True)
class Repaired:
    pages: int  # rows that could be read
    adopted: int  # images without a row, which are read (again)
    owed: int  # results of which nobody knows who has them, owed to everybody (again)
    kept: Path  # the damaged database; it may hold read values


def repair(directory: Path, sinks: tuple[str, ...]) -> Repaired:
    """Put a new database in the place of a damaged one.

    Args:
        directory: The spool; no process may hold it.
        sinks: Who gets the results, by the configuration.
    """
    try:
        with locked(directory / "lock"):
            kept = _keep(directory)
            draft = directory / f"{REPAIRED}.part"
            draft.unlink(missing_ok=True)
            pages, adopted, owed = _build(draft, kept / DATABASE, directory / PAGES, sinks)
            draft.replace(directory / REPAIRED)  # from here on no spool opens before the repair is finished
            sync_directory(directory)
            for name in _LOGS:  # a new database must not meet the log of an old one
                (directory / name).unlink(missing_ok=True)
            (directory / REPAIRED).replace(directory / DATABASE)
            sync_directory(directory)
    except OSError as err:
        raise disk_fault(err, directory, "repairing the spool") from err
    return Repaired(pages, adopted, owed, kept)


def _keep(directory: Path) -> Path:
    """Return the folder that the damaged files were copied to; that of the interrupted repair where there is one."""
    number = len(list(directory.glob("damaged-*[0-9]")))
    if (directory / REPAIRED).exists():
        return directory / f"damaged-{number}"
    kept, part = directory / f"damaged-{number + 1}", directory / "damaged.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(mode=0o700)
    for name in (DATABASE, *_LOGS):
        if (directory / name).exists():
            shutil.copyfile(directory / name, part / name)
            with (part / name).open("rb") as file:
                os.fsync(file.fileno())
    sync_directory(part)
    part.replace(kept)
    sync_directory(directory)
    return kept


def _build(path: Path, damaged: Path, images: Path, sinks: tuple[str, ...]) -> tuple[int, int, int]:
    """Fill a new database at `path`; return the counts of `Repaired`."""
    found = {table: _readable(damaged, table) for table in _ORDER}
    db = connect(path)
    try:
        db.execute("PRAGMA journal_mode = DELETE")  # one file, which takes its place in one step
        create_tables(db, path.parent)
        db.execute("BEGIN")
        for row in found["elapsed"][:1]:
            _insert(db, "elapsed", row, "DELETE FROM elapsed")
        db.execute("UPDATE elapsed SET total_s = max(total_s, ?)", (max([0.0, *_read_s(found["pages"])]),))
        for table in ("pages", "sinks", "deliveries"):
            for row in found[table]:
                _insert(db, table, row)
        db.executemany("INSERT OR IGNORE INTO sinks (name) VALUES (?)", [(name,) for name in sinks])
        db.execute("INSERT OR IGNORE INTO sinks (name) SELECT DISTINCT sink FROM deliveries")
        adopted = sum(_adopt(db, path) for path in sorted(images.iterdir()))
        lost = "document IS NOT NULL AND NOT EXISTS (SELECT 1 FROM deliveries WHERE page = seq)"
        (owed,) = db.execute(f"SELECT count(*) FROM pages WHERE {lost}").fetchone()
        db.execute(f"INSERT INTO deliveries (sink, page) SELECT name, seq FROM sinks JOIN pages ON {lost}")
        db.execute("DELETE FROM deliveries WHERE page NOT IN (SELECT seq FROM pages WHERE document IS NOT NULL)")
        db.execute("COMMIT")
        (pages,) = db.execute("SELECT count(*) FROM pages").fetchone()
    finally:
        db.close()
    return pages - adopted, adopted, owed


def _readable(damaged: Path, table: str) -> list[dict[str, Any]]:
    """Return a table's rows from both of its ends up to where it cannot be read any more."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for direction in ("ASC", "DESC"):
        # Whatever is wrong ends this direction: a file that is none, a table that is not there, a page of noise.
        with contextlib.suppress(sqlite3.Error), contextlib.closing(_opened(damaged)) as db:
            for row in db.execute(f"SELECT * FROM {table} ORDER BY {_ORDER[table].format(direction)} {direction}"):
                found.setdefault(tuple(row), dict(row))
    return list(found.values())


def _opened(damaged: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{damaged.absolute().as_uri()}?mode=ro", uri=True)
    db.row_factory = sqlite3.Row
    return db


def _insert(db: sqlite3.Connection, table: str, row: dict[str, Any], before: str = "SELECT 1") -> None:
    """Insert a row as it was; one that contradicts the schema, or another row, is no row."""
    with contextlib.suppress(sqlite3.IntegrityError):
        db.execute("PRAGMA defer_foreign_keys = ON")  # a page that is missing is found out below
        db.execute(before)
        marks = ", ".join("?" * len(row))
        db.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", tuple(row.values()))


def _read_s(pages: list[dict[str, Any]]) -> list[float]:
    return [row["read_s"] for row in pages if isinstance(row["read_s"], float)]


def _adopt(db: sqlite3.Connection, path: Path) -> int:
    """Make a whole image that has no row a page to be read; return how many."""
    name = _IMAGE.fullmatch(path.name)
    if name is None or db.execute("SELECT 1 FROM pages WHERE id = ?", (name[1],)).fetchone():
        return 0
    sha256 = sha256_file(path)
    db.execute(
        "INSERT INTO pages (id, fingerprint, source, key, sha256, suffix, size_bytes, received_at) "
        "VALUES (?, ?, 'recovered', ?, ?, ?, ?, ?)",
        (
            name[1], fingerprint_of("recovered", path.name, sha256), path.name, sha256, name[2], path.stat().st_size,
            system_clock().stamp(),
        ),
    )  # fmt: skip
    return 1
