"""A cut at any call that changes the disk leaves a device that starts with a whole, verified release, and goes on."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from hwr_export.device.install import InstallConfig, install
from hwr_export.device.slots import Root
from hwr_export.device.start import start
from hwr_export.device.upkeep import gc
from hwr_export.errors import ScannerError
from hwr_export.release import GOLDENS
from tests.device.conftest import Maker
from tests.device.power_cut import Replay, fingerprint, killed_at, laid_out, record
from tests.device.test_start import spoil

SCAN = "from hwr_export.scan_cli import main; main(prog_name='hwr-scan')"
START = (
    "import sys; from pathlib import Path; from hwr_export.device.start import start; start(Path(sys.argv[1])).close()"
)


class Scenario(NamedTuple):
    """A device and what is done to it; afterwards it starts with one of `versions`, None where nothing may be there.

    `quietly`: and needs no fallback for it. `way_back`: and both slots are filled then.
    """

    command: Callable[[Path, Maker], list[str]]
    prepare: Callable[[Path, Maker], None]
    versions: tuple[str | None, ...]
    quietly: bool = True
    way_back: bool = True


def two_installed(root: Path, maker: Maker) -> None:
    for version in ("1.0.0", "1.1.0"):
        install(maker.archive(version), root, InstallConfig())


def second_spoiled(root: Path, maker: Maker) -> None:
    two_installed(root, maker)
    spoil(Root(root).release("b") / GOLDENS)


def fallen_back(root: Path, maker: Maker) -> None:
    second_spoiled(root, maker)
    start(root).close()


SCENARIOS = {
    "first install": Scenario(
        lambda root, maker: ["-c", SCAN, "install", str(maker.archive("1.0.0")), "--root", str(root)],
        lambda root, maker: None,
        (None, "1.0.0"),
        way_back=False,
    ),
    "install": Scenario(
        lambda root, maker: ["-c", SCAN, "install", str(maker.archive("1.2.0")), "--root", str(root)],
        two_installed,
        ("1.1.0", "1.2.0"),
    ),
    "rollback": Scenario(
        lambda root, maker: ["-c", SCAN, "rollback", "--root", str(root)], two_installed, ("1.1.0", "1.0.0")
    ),
    "fallback": Scenario(lambda root, maker: ["-c", START, str(root)], second_spoiled, ("1.0.0",), quietly=False),
    "gc": Scenario(
        lambda root, maker: ["-c", SCAN, "gc", "--root", str(root)], fallen_back, ("1.0.0",), way_back=False
    ),
}


def prepared(scenario: Scenario, maker: Maker, path: Path) -> Path:
    root = path / "device"
    shutil.copytree(maker.trusted, root / "trusted")
    scenario.prepare(root, maker)
    return root


def require_starts(root: Path, scenario: Scenario) -> None:
    """See that a device starts with a whole release, as its self-test says, and with none but those expected."""
    if None in scenario.versions and not Root(root).filled():
        with pytest.raises(ScannerError, match="nothing is installed"):
            start(root)
        return
    with start(root) as active:
        assert active.version in scenario.versions
        assert all(status.ok for status in active.release.verify())
        assert not (scenario.quietly and active.notes), active.notes
    assert len(Root(root).filled()) == 2 or not scenario.way_back


def require_goes_on(root: Path, maker: Maker) -> None:
    """See that a device can be updated after a cut, and that nothing is left lying about."""
    done = install(maker.archive("1.3.0"), root, InstallConfig())
    assert done["result"] == "installed"
    with start(root) as active:
        assert (active.version, active.notes) == ("1.3.0", ())
    gc(root)
    assert Root(root).left_overs() == []


def cut(name: str, maker: Maker, path: Path, every: int) -> int:
    """Repeat a scenario up to each call and see how the device goes on from every n-th state that a cut may leave.

    Returns:
        The number of states.
    """
    scenario = SCENARIOS[name]
    root = prepared(scenario, maker, path)
    copy = path / "recorded"
    shutil.copytree(root, copy, symlinks=True)
    replay = Replay(copy)
    seen, states = set(), 0
    for number, call in enumerate(record(scenario.command(copy, maker), path / "calls")):
        if not replay.does(call):
            continue
        for state in replay.states(number):
            found = fingerprint(state)
            if found in seen:
                continue
            seen.add(found)
            states += 1
            if (states - 1) % every:
                continue
            left = laid_out(state, path / "left")
            require_starts(left, scenario)
            require_goes_on(left, maker)
            shutil.rmtree(left)
    return states


def test_the_model_of_a_disk_ends_where_the_disk_ends(maker: Maker, tmp_path: Path) -> None:
    root = prepared(SCENARIOS["install"], maker, tmp_path)
    replay = Replay(root)
    for call in record(SCENARIOS["install"].command(root, maker), tmp_path / "calls"):
        replay.does(call)
    after = Replay(root).disk
    assert fingerprint(replay.disk) == fingerprint(after)
    flushed = list(replay.states(0))[1]
    # What was removed may come back after a cut; what was put into its place is there.
    assert fingerprint(flushed.entries["slots"].entries["a"]) == fingerprint(after.entries["slots"].entries["a"])
    assert flushed.entries["current"].target == b"slots/a"


@pytest.mark.parametrize(("name", "every"), [("install", 8), ("rollback", 4), ("fallback", 4)])
def test_a_cut_leaves_a_device_that_starts_and_goes_on(name: str, every: int, maker: Maker, tmp_path: Path) -> None:
    assert cut(name, maker, tmp_path, every) > every


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_cut_at_every_call_leaves_a_device_that_starts_and_goes_on(name: str, maker: Maker, tmp_path: Path) -> None:
    assert cut(name, maker, tmp_path, 1) > 5


def kill(name: str, maker: Maker, path: Path, every: int) -> int:
    """Kill a scenario before each n-th call that changes the disk; return how many there are."""
    scenario = SCENARIOS[name]
    root = prepared(scenario, maker, path)
    copy = path / "device-copy"
    shutil.copytree(root, copy, symlinks=True)
    before = path / "before"
    shutil.copytree(root, before, symlinks=True)
    recorded = record(scenario.command(copy, maker), path / "calls")
    copied = Replay(before)
    copied.root = copy
    found = [call for call in recorded if copied.does(call)]
    for call in found[every // 2 :: every]:
        shutil.rmtree(copy)
        shutil.copytree(before, copy, symlinks=True)
        assert killed_at(call, scenario.command(copy, maker)), call
        require_starts(copy, scenario)
        require_goes_on(copy, maker)
    return len(found)


@pytest.mark.parametrize(("name", "every"), [("install", 25), ("rollback", 8)])
def test_a_kill_leaves_a_device_that_starts_and_goes_on(name: str, every: int, maker: Maker, tmp_path: Path) -> None:
    assert kill(name, maker, tmp_path, every) > every


@pytest.mark.slow
@pytest.mark.parametrize("name", SCENARIOS)
def test_a_kill_before_every_call_leaves_a_device_that_starts_and_goes_on(
    name: str, maker: Maker, tmp_path: Path
) -> None:
    assert kill(name, maker, tmp_path, 1) > 5
