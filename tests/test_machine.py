import json
from dataclasses import replace

import pytest

from hwr_export import machine
from hwr_export.machine import Moment, machine_facts, peak_rss_mib, watched


def test_the_machine_is_described_not_named() -> None:
    facts = machine_facts()
    assert facts["cpu"]
    assert facts["cores"] >= len(facts["affinity"]) >= 1
    assert facts["memory_mib"] > 500
    assert "hostname" not in json.dumps(facts)


QUIET = Moment(0.0, 0.1, 2600.0, 10.0, 5, None)


@pytest.mark.parametrize(
    ("changes", "spread", "noise"),
    [
        ({}, 0.02, []),
        ({}, 0.3, ["unchanging work differed by 30 % between rounds"]),
        ({"stolen_s": 1e6}, 0.02, ["the hypervisor took"]),
        ({"throttled": 9}, 0.02, ["the processor was throttled 4 times"]),
    ],
)
def test_noise_is_noticed(changes: dict, spread: float, noise: list[str]) -> None:
    found = watched(QUIET, QUIET, replace(QUIET, at_s=10.0, **changes), 1, spread)
    assert len(found["noisy"]) == len(noise)
    assert all(said.startswith(expected) for said, expected in zip(found["noisy"], noise, strict=True))
    assert found["seconds"] == 10


def test_load_before_the_measurement_is_noise() -> None:
    busy = replace(QUIET, load_average_1min=1.7)
    assert watched(busy, QUIET, replace(busy, at_s=1.0), 1, 0)["noisy"] == [
        "the load average was 1.70 before anything was measured"
    ]


def test_what_a_machine_does_not_tell_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(machine, "CPU", tmp_path)
    monkeypatch.setattr(machine, "POWERCAP", tmp_path)
    assert machine.energy_j() is None
    assert machine_facts()["governor"] is None
    now = Moment.now()
    assert now.throttled is now.energy_j is None
    found = watched(now, now, Moment.now(), 1, 0)
    assert found["throttled"] is None


def test_energy_is_read_where_a_counter_is(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    for i, joules in enumerate((3, 4)):
        counter = tmp_path / f"intel-rapl:{i}"
        counter.mkdir()
        (counter / "energy_uj").write_text(f"{joules}000000\n")
    monkeypatch.setattr(machine, "POWERCAP", tmp_path)
    assert machine.energy_j() == 7


def test_memory_is_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 10 < peak_rss_mib() < 100_000
