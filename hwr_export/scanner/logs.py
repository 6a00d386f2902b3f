"""What happens -> one JSON object a line on stderr, which systemd's journal keeps.

An event has a name and fields from a fixed list, so that no image, no read value and no text of a library can come into
a log by accident.
"""

import json
import logging
import sys
import threading
import traceback
from datetime import datetime, timezone
from typing import Any, Literal

FIELDS = frozenset(
    {
        "page", "source", "sink", "state", "detail", "advice", "reason", "count", "fields", "rejected_fields",
        "duration_ms", "release", "slot", "version", "error", "where", "signal", "config",
    }
)  # fmt: skip
Level = Literal["info", "warning", "error"]
_WRITING = threading.Lock()


def log(event: str, level: Level = "info", **fields: Any) -> None:
    """Write one line; a field that is not on the list is an error of the caller."""
    if unknown := set(fields) - FIELDS:
        raise ValueError(f"logs carry no {min(unknown)!r}; they may carry: {', '.join(sorted(FIELDS))}")
    now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
    line = json.dumps({"time": now, "level": level, "event": event} | fields, ensure_ascii=False)
    with _WRITING:
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def log_unexpected(event: str, err: BaseException, **fields: Any) -> None:
    """Write what nobody foresaw: the kind of error and where it was raised, without its text, which may quote data."""
    frames = traceback.extract_tb(err.__traceback__)
    where = " < ".join(f"{f.filename.rsplit('/', 2)[-1]}:{f.lineno} {f.name}" for f in reversed(frames))
    log(event, "error", error=type(err).__name__, where=where, **fields)


class _Handler(logging.Handler):
    """Records of the sinks, whose messages speak of the delivery alone; of libraries only that there was one."""

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "info" if record.levelno < logging.WARNING else "warning"
        known = {name: value for name in ("page", "sink") if (value := getattr(record, name, None)) is not None}
        if record.name.partition(".")[0] == __package__.partition(".")[0]:
            log("delivery", level, detail=record.getMessage(), **known)
        elif record.levelno >= logging.WARNING:
            log("library", level, where=f"{record.name}:{record.lineno}", **known)


def take_over_logging() -> None:
    """Turn what is logged anywhere in the process into lines of this log."""
    logging.basicConfig(level=logging.INFO, handlers=[_Handler()], force=True)
