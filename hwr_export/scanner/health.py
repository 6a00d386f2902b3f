"""How the service is -> one file that is whole at every moment: for monitoring, for `hwr-scan status`, for people."""

import json
import os
import time
from pathlib import Path
from typing import Any

from hwr_export.errors import ScannerError
from hwr_export.files import json_bytes, write_atomic

EVERY_S = 5.0
STALE_S = 4 * EVERY_S


class HealthFile:
    """Written when something has changed, and every few seconds to say that the service goes on."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._last: dict[str, Any] = {}
        self._written_s = float("-inf")
        path.parent.mkdir(parents=True, exist_ok=True)

    def write(self, document: dict[str, Any]) -> None:
        """Write a document if it says something new or the last one is old.

        Raises:
            OSError: the file cannot be written; the one before is still there.
        """
        now_s = time.monotonic()
        if document == self._last and now_s - self._written_s < EVERY_S:
            return
        self._last, self._written_s = document, now_s
        written = {"schema": 1, "pid": os.getpid(), "boot_s": time.clock_gettime(time.CLOCK_BOOTTIME)}
        write_atomic(self._path, json_bytes(written | document))


def read_health(path: Path) -> dict[str, Any]:
    """Return what the service wrote last, with `running`: whether that is of now.

    Raises:
        ScannerError: there is no such file, or it is not ours.
    """
    try:
        document = dict(json.loads(path.read_bytes()))
        age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - float(document["boot_s"])
    except FileNotFoundError as err:
        raise ScannerError(f"there is no {path}: the service has not run since the machine started") from err
    except (ValueError, TypeError, KeyError) as err:
        raise ScannerError(f"{path} is no health file of this service; take it away") from err
    alive = Path(f"/proc/{document.get('pid')}").exists()
    return document | {"running": alive and 0 <= age_s < STALE_S and document.get("state") != "stopped"}
