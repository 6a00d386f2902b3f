"""Bench documents made by hand, whose every ratio is known, and one backend that is really slowed down."""

import json
import mmap
import random
from pathlib import Path

import numpy as np
import pytest

from hwr_export.compare import compare, load_bench
from hwr_export.errors import UsageError
from hwr_export.latency import Samples, undisturbed
from hwr_export.measurement import measure
from hwr_export.release import Release
from hwr_export.runners import Arrays, Runner
from hwr_export.spec import INPUT, PROBABILITIES, ModelSpec
from tests.conftest import ROOT

MACHINE = {"cpu": "Some CPU", "cores": 2}


def around(value: float, relative: float) -> list[float]:
    return [value, value * (1 - relative), value * (1 + relative)]


def document(
    factor: float = 1.0,
    pace: float = 1.0,
    seed: int = 0,
    backends: tuple[str, ...] = ("onnxruntime",),
    span_s: float = 20,
) -> dict:
    """`factor` slows the backend down, `pace` the whole machine."""
    rng = np.random.default_rng(seed)
    cells = [
        {
            "backend": b,
            "precision": "fp32",
            "batch": 1,
            "threads": 1,
            "n": 2000,
            "images_per_s": 2000 / span_s,
            "undisturbed_us": around(100 * factor * pace * rng.lognormal(0, 0.005), 0.01),
            "yardstick_us": around(300 * pace * rng.lognormal(0, 0.001), 0.002),
        }
        for b in backends
    ]
    return {"schema": 3, "machine": MACHINE, "watches": [{"noisy": []}], "cells": cells}


@pytest.mark.parametrize(("factor", "answer"), [(1.0, "SAME"), (1.1, "SLOWER"), (0.9, "FASTER"), (1.04, "AMBIGUOUS")])
def test_known_ratios(factor: float, answer: str) -> None:
    found = compare(document(factor, seed=1), document())
    assert [c["answer"] for c in found["cells"]] == [answer]
    assert found["regression"] == (answer == "SLOWER")
    assert found["cells"][0]["ratio"] == pytest.approx(factor, rel=0.03)


def test_a_slower_machine_is_not_a_slower_backend() -> None:
    assert compare(document(pace=1.3, seed=1), document())["cells"][0]["answer"] == "SAME"


def test_a_run_that_may_have_been_disturbed_all_along_is_no_evidence_of_a_tenth() -> None:
    short = document(1.2, span_s=1)
    assert compare(document(1.2), document())["cells"][0]["answer"] == "SLOWER"
    assert compare(short, document())["cells"][0]["answer"] == "AMBIGUOUS"
    assert compare(document(), short)["cells"][0]["answer"] == "AMBIGUOUS"
    assert compare(document(3, span_s=1), document())["cells"][0]["answer"] == "SLOWER"
    both = document(1.2, backends=("onnxruntime", "openvino"), span_s=1.2)
    assert compare(both, document())["cells"][0]["answer"] == "SLOWER"  # in turns, they lie over 2.4 s


def test_what_one_of_them_lacks_is_said() -> None:
    found = compare(document(backends=("onnxruntime", "openvino")), document())
    assert found["not_in_both"] == [["openvino", "fp32", 1, 1]]


def test_different_machines_are_refused() -> None:
    other = document() | {"machine": {"cpu": "Other CPU", "cores": 2}}
    with pytest.raises(UsageError, match="different machines: Some CPU, 2 cores and Other CPU, 2 cores"):
        compare(document(), other)


def test_nothing_in_common_is_refused() -> None:
    with pytest.raises(UsageError, match="nothing in common"):
        compare(document(backends=("openvino",)), document())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no report of `hwr-export bench`"),
        ("[]", "is no report"),
        (json.dumps({"schema": 1, "cells": []}), "of schema 1, expected 3"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "bench.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=message):
        load_bench(path)
    path.write_text(json.dumps(document()))
    assert load_bench(path) == load_bench(tmp_path) == document()


# One page of memory: where larger arrays happen to lie cost a sum a twelfth and a matrix product a quarter.
PAGE = np.empty(2 * mmap.PAGESIZE, np.uint8)
PAGE = PAGE[-PAGE.ctypes.data % mmap.PAGESIZE :][:4096].view(np.float32)
VALUES, RESULTS = PAGE[:512], PAGE[512:]
VALUES[:] = np.random.default_rng(1).random(512, dtype=np.float32)


class Work(Runner):
    """So many units of work that never changes, and an answer: other work than the yardstick's, as constant."""

    backend, package = "work", "numpy"

    def __init__(self, spec: ModelSpec, units: int) -> None:
        super().__init__(spec)
        self.units = units

    def _open(self) -> None: ...

    def _infer(self, inputs: Arrays) -> Arrays:
        for _ in range(120 * self.units):
            np.exp(VALUES, out=RESULTS)
        return {PROBABILITIES: np.ones((len(inputs[INPUT]), 1), np.float32)}


def measured(release: Release, units: int, seconds: float) -> dict:
    images = np.zeros((64, *release.spec.image_shape), np.uint8)
    (one,), ticks = measure([Work(release.spec, units)], images, 1, seconds, random.Random(0))
    cell = {"backend": "work", "precision": "fp32", "batch": 1, "threads": 1}
    took = {"undisturbed_us": bounds(one.samples), "yardstick_us": bounds(ticks)}
    took |= {"n": one.samples.size, "images_per_s": one.samples.size / one.samples.sum() * 1e6}
    return {"machine": {"cpu": "this", "cores": 1}, "watches": [{"noisy": []}], "cells": [cell | took]}


def bounds(samples: Samples) -> list[float]:
    found = undisturbed(samples)
    return [found.value, found.low, found.high]


@pytest.mark.alone
@pytest.mark.parametrize(("units", "answer"), [(22, "SLOWER"), (20, "SAME")])
def test_an_injected_slowdown_of_a_tenth_is_called_slower(units: int, answer: str) -> None:
    """Work that is really done and really timed; AMBIGUOUS means, as documented, to measure longer."""
    release = Release.open(ROOT / "exported" / "digits")
    for seconds in (0.2, 0.5, 1.0, 2.0, 4.0):
        found = compare(measured(release, units, seconds), measured(release, 20, seconds))["cells"][0]
        if found["answer"] != "AMBIGUOUS":
            break
    assert found["answer"] == answer, found
