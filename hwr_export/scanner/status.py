"""`scan.toml` -> how the service is, as its health file says: for `hwr-scan status`."""

from pathlib import Path
from typing import Any

from hwr_export.scanner.config import load_config
from hwr_export.scanner.health import read_health
from hwr_export.scanner.sources.states import NEEDS_A_PERSON


def service_status(config: Path) -> dict[str, Any]:
    """Return what the health file says, with `ok`: it runs, and nothing in it waits for a person.

    Raises:
        UsageError: the configuration is not valid.
        ScannerError: the service has not run since the machine started.
    """
    found = read_health(load_config(config).health)
    problems = [
        f"{name}: {source['state']}; {source['advice']}"
        for name, source in found["sources"].items()
        if source["state"] in NEEDS_A_PERSON
    ]
    if not found["running"]:
        problems.append("the service does not run: systemctl start hwr-scan, and journalctl -u hwr-scan says why")
    elif found["state"] not in ("starting", "reading", "idle", "draining"):
        problems.append(f"the spool's disk: {found['state']}")
    problems += [f"{name}: {sink['trouble']}" for name, sink in found["sinks"].items() if sink["trouble"]]
    problems += [
        f"{name}: {counts['dead']} dead letters, which it refused: hwr-scan dead-letters"
        for name, counts in found["spool"]["sinks"].items()
        if counts["dead"]
    ]
    return found | {"problems": problems, "ok": not problems}


def sources_table(status: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return what sources do, for people."""
    rows = [(name, s["state"], s["detail"], s["advice"]) for name, s in status["sources"].items()]
    return ("source", "state", "detail", "what to do"), rows


def spool_table(status: dict[str, Any]) -> tuple[tuple[str, ...], list[tuple[Any, ...]]]:
    """Return what waits, for people."""
    spool = status["spool"]
    rows: list[tuple[Any, ...]] = [
        ("pages not read", spool["unread"]),
        ("results not delivered", spool["undelivered"]),
        ("images kept", spool["images"]),
        ("MB of images", round(spool["image_bytes"] / 1e6, 1)),
    ]
    for name, counts in spool["sinks"].items():
        rows += [(f"{name}: {what}", counts[what]) for what in ("pending", "dead", "delivered")]
    return ("spool", "number"), rows
