"""Every backend keeps the same contract, on real digits."""

import numpy as np
import pytest

from hwr_export import runners
from hwr_export.datasets import Dataset
from hwr_export.errors import RunnerError, UsageError
from hwr_export.release import Release
from hwr_export.runners import ONNX_BACKENDS, Runner, installed, onnx_runner, why_absent
from hwr_export.runners.eager import EagerRunner
from hwr_export.runners.onnxruntime import open_session
from hwr_export.runners.release import open_runner
from hwr_export.spec import INPUT, LOGITS, OUTPUTS, PROBABILITIES
from tests.conftest import MAX_BATCH

BACKENDS = ["eager", "onnxruntime", "openvino"]


def make(backend: str, release: Release) -> Runner:
    if backend == "eager":
        return EagerRunner.from_release(release.path, release.spec)
    return onnx_runner(backend, release.read(release.onnx("fp32")), release.spec)


@pytest.fixture(params=BACKENDS)
def runner(request: pytest.FixtureRequest, release: Release):
    with make(request.param, release) as opened:
        yield opened


def test_every_backend_is_installed_here() -> None:
    assert all(installed(b) for b in ONNX_BACKENDS)


def test_what_the_machine_lacks_is_said(monkeypatch: pytest.MonkeyPatch, release: Release) -> None:
    monkeypatch.setattr(runners, "NVIDIA_DRIVER", ("/nowhere",))
    monkeypatch.setattr(runners, "has_bf16", lambda: False)
    assert [why_absent(b) for b in ("onnxruntime", "openvino")] == ["", ""]
    assert why_absent("openvino-bf16") == "this processor has no bf16 arithmetic"
    with pytest.raises(UsageError, match="onnxruntime-cuda cannot be used: there is no NVIDIA GPU here"):
        onnx_runner("onnxruntime-cuda", b"", release.spec)


@pytest.mark.skipif(bool(why_absent("openvino-bf16")), reason="no bf16 arithmetic in this processor")
def test_bf16_computes_in_bf16(release: Release, mnist_test: Dataset) -> None:
    model, images = release.read(release.onnx("fp32")), mnist_test.images[:64]
    with (
        onnx_runner("openvino-bf16", model, release.spec) as half,
        onnx_runner("openvino", model, release.spec) as full,
    ):
        apart = np.abs(half.infer_all(images)[LOGITS] - full.infer_all(images)[LOGITS]).max()
    assert 1e-4 < apart < 1


@pytest.mark.parametrize("variant", ["eager-channels-last", "eager-bf16"])
def test_variants_of_eager_answer_alike(release: Release, mnist_test: Dataset, variant: str) -> None:
    images = mnist_test.images[:200]
    with open_runner(release, variant, "fp32") as other, open_runner(release, "eager", "fp32") as eager:
        assert (other.infer_all(images)[LOGITS].argmax(1) == eager.infer_all(images)[LOGITS].argmax(1)).mean() > 0.98


def test_real_digits_are_read(runner: Runner, mnist_test: Dataset) -> None:
    outputs = runner.infer_all(mnist_test.images[:500])
    assert (outputs[LOGITS].argmax(1) == mnist_test.labels[:500]).mean() > 0.85
    assert outputs[PROBABILITIES].sum(1) == pytest.approx(np.ones(500), abs=1e-5)
    assert {o.dtype for o in outputs.values()} == {np.dtype(np.float32)}


def test_any_split_into_batches_gives_the_same(runner: Runner, mnist_test: Dataset) -> None:
    images = mnist_test.images[:40]
    whole = runner.infer_all(images)
    for batch in (1, 3, MAX_BATCH):
        parts = runner.infer_all(images, batch)
        np.testing.assert_allclose(parts[LOGITS], whole[LOGITS], atol=2e-5)


def test_an_answer_stays_when_the_next_is_asked(runner: Runner, mnist_test: Dataset) -> None:
    first = runner.infer({INPUT: mnist_test.images[:4]})
    kept = {name: first[name].copy() for name in OUTPUTS}
    runner.infer({INPUT: mnist_test.images[4:8]})
    for name in OUTPUTS:
        np.testing.assert_array_equal(first[name], kept[name])


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (np.zeros((MAX_BATCH + 1, 28, 28), np.uint8), "batch of 17 is outside 1 to 16"),
        (np.zeros((0, 28, 28), np.uint8), "batch of 0 is outside"),
        (np.zeros((1, 28, 28), np.float32), "must be uint8"),
        (np.zeros((1, 1, 28, 28), np.uint8), r"\(N, 28, 28\), got uint8 \(1, 1, 28, 28\)"),
        (np.zeros((1, 28, 27), np.uint8), "must be uint8"),
    ],
)
def test_what_the_graph_was_not_exported_for_is_refused(runner: Runner, image: np.ndarray, message: str) -> None:
    with pytest.raises(RunnerError, match=message):
        runner.infer({INPUT: image})


def test_a_wrong_name_is_refused(runner: Runner) -> None:
    with pytest.raises(RunnerError, match="takes the input 'image', got x"):
        runner.infer({"x": np.zeros((1, 28, 28), np.uint8)})


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("cut", [0, 100, -50])
def test_a_truncated_model_is_one_sentence(release: Release, backend: str, cut: int) -> None:
    model = release.read(release.onnx("fp32"))[:cut]
    with pytest.raises(RunnerError, match="cannot load the model") as caught, onnx_runner(backend, model, release.spec):
        pass
    assert "\n" not in str(caught.value)


def test_a_provider_that_is_not_there_is_a_failure(release: Release) -> None:
    with (
        pytest.warns(UserWarning, match="not in available provider names"),
        pytest.raises(RunnerError, match="asked for CUDAExecutionProvider and came up on CPU"),
    ):
        open_session(release.read(release.onnx("fp32")), "CUDAExecutionProvider", 1)


def test_unknown_and_missing_backends(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="no backend 'tflite'; known: onnxruntime, openvino"):
        onnx_runner("tflite", b"", release.spec)
    monkeypatch.setattr("hwr_export.runners.installed", lambda backend: False)
    with pytest.raises(UsageError, match=r"pip install 'hwr-export\[openvino\]'"):
        onnx_runner("openvino", b"", release.spec)
