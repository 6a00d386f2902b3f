"""Batches, repeats and pinned facts."""

import numpy as np
import pytest

from hwr_export.guards import try_batches, unpinned_facts
from hwr_export.release import CHECKPOINT, Release
from hwr_export.runners import Arrays, Runner, onnx_runner
from hwr_export.spec import INPUT, LOGITS, PROBABILITIES
from tests.conftest import MAX_BATCH

TOLERANCE = 1e-4


class Fake(Runner):
    """Answers from a function of the images; remembers nothing."""

    backend = "fake"

    def __init__(self, release: Release, answer, limit: bool = True) -> None:
        super().__init__(release.spec)
        self._answer = answer
        if not limit:
            self._check = lambda inputs: None

    def _open(self) -> None: ...

    def _infer(self, inputs: Arrays) -> Arrays:
        return {LOGITS: self._answer(inputs[INPUT]), PROBABILITIES: np.zeros(0)}


def flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1)[:, :10].astype(np.float32)


def test_batches_that_answer_differently_are_found(release: Release, mnist_test) -> None:
    def leaks(images: np.ndarray) -> np.ndarray:
        return flat(images) + (len(images) > 2)

    images = mnist_test.images[:50]
    assert try_batches(Fake(release, flat), images, TOLERANCE)[1] == []
    results, problems = try_batches(Fake(release, leaks), images, TOLERANCE)
    assert len(problems) == 2
    assert results["2"] == "ok"
    assert "differs by 1" in results["7"]


def test_a_runner_that_takes_more_than_the_maximum_is_found(release: Release, mnist_test) -> None:
    _, problems = try_batches(Fake(release, flat, limit=False), mnist_test.images[:50], TOLERANCE)
    assert problems == [f"a batch of {MAX_BATCH + 1} was not refused"]


def test_an_answer_that_changes_when_repeated_is_found(release: Release, mnist_test) -> None:
    calls = iter(range(10_000))

    def drifts(images: np.ndarray) -> np.ndarray:
        return flat(images) + np.float32(1e-6) * next(calls) * (len(images) == 2)

    images = (mnist_test.images[:50] // 200).astype(np.uint8)  # small numbers, so that a drift is not rounded away
    results, problems = try_batches(Fake(release, drifts), images, 1.0)
    assert problems == [f"a batch of 2 {results['2']}"]
    assert "from itself when repeated" in results["2"]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_the_file_names_its_labels_and_its_checkpoint(release: Release, backend: str) -> None:
    with onnx_runner(backend, release.read(release.onnx("fp32")), release.spec) as runner:
        told = runner.metadata()
    assert told["hwr.labels_sha256"] == release.spec.labels_sha256
    assert told["hwr.checkpoint_sha256"] == release.entry(CHECKPOINT).sha256
    assert unpinned_facts(told, release) == ([], None)
    (reason,), fault = unpinned_facts(told | {"hwr.labels": "1023456789", "hwr.labels_sha256": "0"}, release)
    assert fault == "swapped labels"
    assert "in the order '1023456789'" in reason
    (reason,), fault = unpinned_facts(told | {"hwr.checkpoint_sha256": "0" * 64}, release)
    assert fault == "stale file"
    assert "000000000000…" in reason
    assert unpinned_facts({}, release) == ([], None)
