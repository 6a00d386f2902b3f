"""ROOT -> what is in its slots, back to the release before, away with what nobody needs."""

from pathlib import Path
from typing import Any

from hwr_export.device.documents import SLOTS, Slot, SlotRecord, SlotState, State
from hwr_export.device.selftest import require_whole, tested_runner
from hwr_export.device.slots import Root, other
from hwr_export.errors import HwrError, ScannerError

BY_HAND = "rolled back by hand"


def rollback(root: Path, threads: int = 1) -> dict[str, Any]:
    """Make the release before the active one again, once it has passed its self-test. Again, and it is undone.

    Raises:
        ScannerError: there is none, it does not pass, or an install is running; nothing is changed then.
    """
    home = _opened(root)
    with home.locked():
        with home.switching():
            left, slot = home.current(), other(home.current())
        record = home.record(slot)
        if left is None or record is None:
            raise ScannerError(f"there is no release to go back to in {root}: slot {slot} is empty")
        with tested_runner(require_whole(home, slot, record), record, threads):
            pass
        with home.switching():
            home.switch_to(slot)
            given_up = _recorded(home, left)
            if given_up:
                reason = SlotState(installation=given_up.installation, reason=BY_HAND, given_up=True)
                home.keep(left, reason)
            home.keep(slot, SlotState(installation=record.installation))
    document = {"schema": 1, "result": "rolled back", "slot": slot, "release": record.document()}
    return document | {"previous": given_up.document() if given_up else None}


def status(root: Path) -> dict[str, Any]:
    """Return what each slot holds, whether it is whole, and how it has fared.

    Raises:
        ScannerError: there is no such directory.
    """
    home = _opened(root)
    current = home.current()
    problems, state = [], State()
    try:
        state = home.state()
    except ScannerError as err:
        problems.append(str(err))
    slots = [_slot_status(home, slot, current, state) for slot in SLOTS]
    active = next((s for s in slots if s["slot"] == current), None)
    if active is None:
        problems.append(f"no slot of {root} is active: run `hwr-scan install ARCHIVE`")
    left = [str(path) for path in home.left_overs()]
    ok = not problems and active is not None and active["state"] == "active"
    head = {"schema": 1, "root": str(root), "ok": ok, "active": current, "last_good": state.last_good}
    return head | {"slots": slots, "left_overs": left, "problems": problems}


def gc(root: Path) -> dict[str, Any]:
    """Remove what killed processes left, and the release that is not active where it was given up or is damaged.

    Raises:
        ScannerError: an install is running.
    """
    home = _opened(root)
    removed, freed = [], 0
    with home.locked(), home.switching():
        for path in home.left_overs():
            removed.append(str(path.relative_to(root)))
            freed += _size_bytes(path)
        home.tidy()
        current = home.current()
        for slot in home.filled():
            found = _slot_status(home, slot, current, _counted(home))
            if current is not None and slot != current and found["state"] in ("given up", "damaged"):
                removed.append(f"slots/{slot}: {found['release'] or found['state']}")
                freed += _size_bytes(home.slot(slot))
                home.empty(slot)
                home.tidy()
    return {"schema": 1, "removed": removed, "freed_bytes": freed}


def _opened(root: Path) -> Root:
    if not (root / "slots").is_dir():
        raise ScannerError(f"nothing is installed in {root}: run `hwr-scan install ARCHIVE`, or give another --root")
    return Root(root)


def _slot_status(home: Root, slot: Slot, current: Slot | None, state: State) -> dict[str, Any]:
    """Return the row of a slot; `state` is one of active, previous, given up, damaged, empty."""
    nothing = {"slot": slot, "state": "empty", "release": "", "record": None, "failures": 0, "problem": ""}
    try:
        record = home.record(slot)
        if record is None:
            return nothing
    except ScannerError as err:
        return nothing | {"state": "damaged", "problem": str(err)}
    fared = state.of(slot, record.installation)
    named = "active" if slot == current else "given up" if fared.given_up else "previous"
    row = nothing | {"state": named, "release": record.title, "record": record.document()}
    row |= {"failures": fared.failures, "problem": fared.reason}
    try:
        require_whole(home, slot, record)
    except HwrError as err:
        row |= {"state": "damaged", "problem": str(err)}
    return row


def _recorded(home: Root, slot: Slot) -> SlotRecord | None:
    """Return what is in the slot that is left; None where that cannot be read."""
    try:
        return home.record(slot)
    except ScannerError:
        return None


def _counted(home: Root) -> State:
    """Return what was counted; of a damaged file nothing, as a start does."""
    try:
        return home.state()
    except ScannerError:
        return State()


def _size_bytes(path: Path) -> int:
    files = [path, *path.rglob("*")] if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files)
