"""Known times are measured as they are; the order, the images and the yardstick are what they are said to be."""

import random
import time

import numpy as np
import pytest

from hwr_export.latency import spread
from hwr_export.measurement import ROUNDS, TICKS, Yardstick, answer, measure, phases, throughput
from hwr_export.release import Release
from hwr_export.runners import Arrays, Runner, onnx_runner
from hwr_export.spec import INPUT, LOGITS, PROBABILITIES


class Paced(Runner):
    """Takes a known time for each call, and keeps the images it saw."""

    backend = "paced"

    def __init__(self, release: Release, seconds: float) -> None:
        super().__init__(release.spec)
        self.seconds = seconds
        self.seen: list[np.ndarray] = []

    def _open(self) -> None: ...

    def _infer(self, inputs: Arrays) -> Arrays:
        self.seen.append(inputs[INPUT])
        until = time.perf_counter() + self.seconds
        while time.perf_counter() < until:
            pass
        n = len(inputs[INPUT])
        return {LOGITS: np.zeros((n, 10), np.float32), PROBABILITIES: np.zeros((n, 10), np.float32)}


def test_known_times_are_measured(release: Release, mnist_test) -> None:
    slow, fast = Paced(release, 400e-6), Paced(release, 200e-6)
    found, ticks = measure([slow, fast], mnist_test.images, 4, 0.05, random.Random(0))
    medians = [float(np.median(one.samples)) for one in found]
    assert 400 <= medians[0] < 600
    assert 200 <= medians[1] < 400
    assert all(one.samples.shape[0] == ROUNDS and one.samples.size >= 100 for one in found)
    assert ticks.shape == (ROUNDS, 2 * TICKS)
    assert (ticks > 0).all()
    assert all(one.warm_up_calls >= 20 for one in found)


def test_a_runner_that_gets_slower_all_the_time_is_not_steady(release: Release, mnist_test, monkeypatch) -> None:
    monkeypatch.setattr("hwr_export.measurement.WARM_UP_AT_MOST_S", 0.2)

    class Tiring(Paced):
        def _infer(self, inputs: Arrays) -> Arrays:
            self.seconds = min(1.02 * self.seconds, 0.005)
            return super()._infer(inputs)

    tiring = Tiring(release, 50e-6)
    (found,), _ = measure([tiring], mnist_test.images, 1, 1e-9, random.Random(0))
    assert not found.steady


def test_parts_of_a_call_add_up(release: Release, mnist_test) -> None:
    parts = phases(Paced(release, 300e-6), mnist_test.images, 2)
    assert list(parts) == ["compute"]
    assert 300 <= parts["compute"] < 600


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_parts_of_a_real_backend(release: Release, mnist_test, backend: str) -> None:
    with onnx_runner(backend, release.read(release.onnx("fp32")), release.spec) as runner:
        parts = phases(runner, mnist_test.images, 16)
    assert list(parts) == ["copy_in", "compute", "copy_out"]
    assert all(us > 0 for us in parts.values())
    assert parts["compute"] > parts["copy_out"]


def test_throughput_counts_images(release: Release, mnist_test) -> None:
    assert 10_000 < throughput(Paced(release, 400e-6), mnist_test.images, 8, 0.1) <= 20_000


def test_the_yardstick_never_changes(release: Release) -> None:
    yardstick = Yardstick()
    assert spread(np.array([np.median([yardstick() for _ in range(5)]) for _ in range(40)])) < 1


def test_images_differ_from_call_to_call(release: Release, mnist_test) -> None:
    runner = Paced(release, 0)
    measure([runner], mnist_test.images, 8, 0.001, random.Random(0))
    first = runner.seen[: len(mnist_test) // 8]
    assert len({s.tobytes() for s in first}) == len(first)
    assert all(s.any() for s in first)


def test_the_answer_is_label_and_confidence(release: Release, mnist_test) -> None:
    with onnx_runner("onnxruntime", release.read(release.onnx("fp32")), release.spec) as runner:
        labels, confidence = answer(runner, mnist_test.images[:16])
    assert (labels == mnist_test.labels[:16]).mean() > 0.8
    assert ((confidence > 0.1) & (confidence <= 1)).all()
