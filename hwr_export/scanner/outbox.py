"""What each sink has still to get: one row a page and sink, made with the result, gone with the acknowledgement.

A sink's place is in the database, so it goes on where it stopped. A result is forgotten when the last sink has it. What
a sink refused stays, listed, until somebody sends it again or discards it.
"""

import json
import sqlite3
from dataclasses import dataclass
from typing import Any

from hwr_export.scanner.store import Store

# So often may others get through between two attempts before it is the document that is at fault, not the sink.
OVERTAKEN_LIMIT = 20


@dataclass(frozen=True)
class Delivery:
    sink: str
    page_id: str
    document: dict[str, Any]
    attempts: int
    seq: int


@dataclass(frozen=True)
class DeadLetter:
    sink: str
    page_id: str
    source: str
    received_at: str
    attempts: int
    error: str


@dataclass(frozen=True)
class SinkCounts:
    pending: int
    dead: int
    delivered: int


class Outbox:
    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, db: sqlite3.Connection, seq: int, sinks: tuple[str, ...]) -> None:
        """Owe the page's result to every sink, within the transaction that stores it."""
        for sink in sinks:
            db.execute("INSERT OR IGNORE INTO sinks (name) VALUES (?)", (sink,))
            db.execute("INSERT INTO deliveries (sink, page) VALUES (?, ?)", (sink, seq))
        self._forget_if_delivered(db, seq)

    def pending(self, sink: str) -> Delivery | None:
        """Return what the sink should get next: the least tried first, then the oldest."""
        with self._store.reading() as db:
            row = db.execute(
                "SELECT id, document, attempts, seq FROM deliveries JOIN pages ON seq = page "
                "WHERE sink = ? AND dead = 0 ORDER BY attempts, page LIMIT 1",
                (sink,),
            ).fetchone()
        return None if row is None else Delivery(sink, row[0], json.loads(row[1]), row[2], row[3])

    def delivered(self, delivery: Delivery) -> None:
        """Mark as received; the second time changes nothing."""
        with self._store.writing("marking a delivery") as db:
            key = (delivery.sink, delivery.seq)
            if db.execute("DELETE FROM deliveries WHERE sink = ? AND page = ?", key).rowcount:
                db.execute("UPDATE sinks SET delivered = delivered + 1 WHERE name = ?", (delivery.sink,))
                self._forget_if_delivered(db, delivery.seq)

    def retry_later(self, delivery: Delivery, why: str) -> None:
        """Put behind all that was tried less; a dead letter where others got through all the time.

        However long a sink is down, nothing overtakes anything, so nothing is given up.
        """
        with self._store.writing("putting a delivery off") as db:
            db.execute(
                "UPDATE deliveries SET attempts = attempts + 1, error = ?, "
                "overtaken = overtaken + (attempts > 0 AND now.delivered > seen), seen = now.delivered, "
                "dead = overtaken + (attempts > 0 AND now.delivered > seen) >= ? "
                "FROM (SELECT delivered FROM sinks WHERE name = ?) AS now WHERE sink = ? AND page = ?",
                (why, OVERTAKEN_LIMIT, delivery.sink, delivery.sink, delivery.seq),
            )

    def dead_letter(self, delivery: Delivery, why: str) -> None:
        """Keep what a sink refused for good."""
        with self._store.writing("keeping a dead letter") as db:
            db.execute(
                "UPDATE deliveries SET dead = 1, attempts = attempts + 1, error = ? WHERE sink = ? AND page = ?",
                (why, delivery.sink, delivery.seq),
            )

    def dead_letters(self) -> list[DeadLetter]:
        """List what was refused, oldest first; no read value is in it."""
        with self._store.reading() as db:
            rows = db.execute(
                "SELECT sink, id, source, received_at, attempts, error FROM deliveries JOIN pages ON seq = page "
                "WHERE dead ORDER BY page, sink"
            ).fetchall()
        return [DeadLetter(*row) for row in rows]

    def send_again(self, sink: str, page_id: str | None = None) -> int:
        """Make a sink's dead letters, or that of one page, pending again; return how many."""
        with self._store.writing("sending again") as db:
            return db.execute(
                "UPDATE deliveries SET dead = 0, attempts = 0, overtaken = 0, error = NULL WHERE dead AND sink = ? "
                "AND (? IS NULL OR page = (SELECT seq FROM pages WHERE id = ?))",
                (sink, page_id, page_id),
            ).rowcount

    def discard(self, sink: str, page_id: str | None = None, *, pending: bool = False) -> int:
        """Give up a sink's dead letters, or that of one page; with `pending` also what it has still to get."""
        with self._store.writing("discarding") as db:
            pages = db.execute(
                "DELETE FROM deliveries WHERE sink = ? AND (dead OR ?) "
                "AND (? IS NULL OR page = (SELECT seq FROM pages WHERE id = ?)) RETURNING page",
                (sink, pending, page_id, page_id),
            ).fetchall()
            for (seq,) in pages:
                self._forget_if_delivered(db, seq)
        return len(pages)

    def counts(self, configured: tuple[str, ...] = ()) -> dict[str, SinkCounts]:
        """Count by sink, sinks that are no longer configured among them."""
        with self._store.reading() as db:
            rows = db.execute(
                "SELECT name, count(page) FILTER (WHERE dead = 0), count(page) FILTER (WHERE dead), delivered "
                "FROM sinks LEFT JOIN deliveries ON sink = name GROUP BY name"
            ).fetchall()
        return dict.fromkeys(configured, SinkCounts(0, 0, 0)) | {name: SinkCounts(*found) for name, *found in rows}

    def _forget_if_delivered(self, db: sqlite3.Connection, seq: int) -> None:
        db.execute(
            "UPDATE pages SET document = NULL WHERE seq = ? AND NOT EXISTS (SELECT 1 FROM deliveries WHERE page = seq)",
            (seq,),
        )
