import json
import random
import time
from pathlib import Path

import numpy as np
import pytest

from hwr_export.bench import BenchConfig, answer, bench, machine_facts, measure
from hwr_export.errors import ReleaseError, UsageError
from hwr_export.release import BENCH, Release
from hwr_export.runners import Arrays, Runner, onnx_runner
from hwr_export.spec import INPUT, LOGITS, PROBABILITIES
from tests.conftest import one_json


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
    samples = measure([slow, fast], mnist_test.images, 4, 0.05, random.Random(0))
    medians = [float(np.median(s)) for s in samples]
    assert 400 <= medians[0] < 600
    assert 200 <= medians[1] < 400
    assert all(len(s) >= 100 for s in samples)


def test_images_differ_from_call_to_call(release: Release, mnist_test) -> None:
    runner = Paced(release, 0)
    measure([runner], mnist_test.images, 8, 0.001, random.Random(0))
    first = runner.seen[: len(mnist_test) // 8]
    assert len({s.tobytes() for s in first}) == len(first)
    assert all(s.any() for s in first)


def test_the_document(release_dir: Path, hwr) -> None:
    result = hwr("bench", release_dir, "--json", "--batch", 1, "--batch", 7, "--seconds", 0.05)
    assert result.exit_code == 0, result.output
    document = one_json(result.stdout)
    assert document["schema"] == 1
    assert {c["backend"] for c in document["cells"]} == {"eager", "onnxruntime", "openvino"}
    assert {c["batch"] for c in document["cells"]} == {1, 7}
    for cell in document["cells"]:
        assert cell["n"] >= 100
        assert 0 < cell["p50_us"] <= cell["p90_us"] <= cell["p99_us"]
        assert cell["images_per_s"] == pytest.approx(cell["batch"] / cell["p50_us"] * 1e6, rel=0.9)
        if cell["backend"] == "eager":
            assert cell["speedup_vs_eager"] == 1
    assert document["data"]["name"] == "mnist"
    assert json.loads((release_dir / BENCH).read_text()) == document
    assert all(s.ok for s in Release.open(release_dir).verify())
    assert "interleaved in one run" in (release_dir / "MODEL_CARD.md").read_text()


def test_without_torch_the_rest_is_measured_and_said(release_dir: Path, hwr_process) -> None:
    arguments = ("bench", release_dir, "--json", "--batch", 1, "--seconds", 0.01, "--backend", "onnxruntime")
    result = hwr_process(*arguments, without=("torch",))
    assert result.returncode == 0, result.stderr
    document = one_json(result.stdout)
    assert document["absent"] == [{"backend": "eager", "reason": "torch is not installed"}]
    assert [c["speedup_vs_eager"] for c in document["cells"]] == [None]
    assert "| - |" in (release_dir / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize(
    "config", [BenchConfig(batches=(0,)), BenchConfig(batches=(17,)), BenchConfig(threads=(0,)), BenchConfig(seconds=0)]
)
def test_impossible_settings_are_refused(release: Release, config: BenchConfig) -> None:
    with pytest.raises(UsageError):
        bench(release, config)


def test_a_changed_model_is_not_measured(release: Release) -> None:
    (release.path / "model.fp32.onnx").write_bytes(b"x")
    with pytest.raises(ReleaseError, match="not the file the manifest vouches for"):
        bench(release, BenchConfig(batches=(1,)))


def test_the_answer_is_label_and_confidence(release: Release, mnist_test) -> None:
    with onnx_runner("onnxruntime", release.read(release.onnx("fp32")), release.spec) as runner:
        labels, confidence = answer(runner, mnist_test.images[:16])
    assert (labels == mnist_test.labels[:16]).mean() > 0.8
    assert ((confidence > 0.1) & (confidence <= 1)).all()


def test_the_machine_is_described_not_named() -> None:
    facts = machine_facts()
    assert facts["cpu"]
    assert facts["cores"] >= 1
    assert "hostname" not in json.dumps(facts)
