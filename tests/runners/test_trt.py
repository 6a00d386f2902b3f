"""The TensorRT runner on fakes: what it does with each answer of TensorRT and CUDA. Nothing here ran on a GPU."""

import gc
import importlib
import time
from pathlib import Path

import numpy as np
import pytest

from hwr_export.datasets import Dataset
from hwr_export.engine.build import engine_from_onnx
from hwr_export.engine.options import release_profiles
from hwr_export.engine.products import Product
from hwr_export.errors import RunnerError, UsageError
from hwr_export.release import Release
from hwr_export.runners import onnx_runner
from hwr_export.runners.cuda import load_cuda
from hwr_export.runners.trt import GRAPHS_KEPT, SOURCE, TrtRunner
from hwr_export.spec import INPUT, LOGITS
from tests.conftest import MAX_BATCH
from tests.engine.fake_trt import FakeTrt
from tests.engine.test_api import VERSIONS
from tests.fake_cuda import FakeCuda, cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    fake = FakeCuda()
    monkeypatch.setattr("hwr_export.engine.build._refused", [])
    monkeypatch.setattr("hwr_export.runners.cuda.load_cuda", lambda: fake)
    return fake


def plan_of(release: Release, trt: FakeTrt, opt_batches: tuple[int, ...] = ()) -> bytes:
    model = release.onnx("fp32")
    profiles = release_profiles(release.spec, opt_batches)
    product = Product(trt.__name__, trt)
    return engine_from_onnx(release.read(model), product, ["sm86"], model.sha256, profiles).data


def runner_of(release: Release, version: str, cuda: FakeCuda, *faults: str, **named) -> TrtRunner:
    trt = FakeTrt(version, cuda)
    plan = plan_of(release, trt, named.pop("opt_batches", ()))
    return TrtRunner(plan, release.spec, FakeTrt(version, cuda, faults), **named)


def test_it_answers_as_the_file_that_the_plan_was_built_from(
    release: Release, version: str, cuda: FakeCuda, mnist_test: Dataset
) -> None:
    images = mnist_test.images[:50]
    with onnx_runner("onnxruntime", release.read(release.onnx("fp32")), release.spec) as other:
        expected = other.infer_all(images)
    with runner_of(release, version, cuda) as runner:
        found = runner.infer_all(images)
        assert runner.backend == version.partition("-")[0]
        assert runner.version() == f"{version.rsplit('-', maxsplit=1)[-1]}.0"
        assert runner.metadata() == {SOURCE: release.onnx("fp32").sha256}
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    assert cuda.launches == 4  # three of 16, one of 2
    assert cuda.kinds() == []


def test_one_graph_and_context_for_each_batch_size_and_no_more_than_are_kept(
    release: Release, version: str, cuda: FakeCuda, mnist_test: Dataset
) -> None:
    with runner_of(release, version, cuda) as runner:
        whole = runner.infer({INPUT: mnist_test.images[:MAX_BATCH]})[LOGITS]
        for n in (1, 3, 3, 1):
            np.testing.assert_allclose(runner.infer({INPUT: mnist_test.images[:n]})[LOGITS], whole[:n], atol=2e-5)
        assert cuda.kinds().count("executable") == runner._trt._contexts == 3
        for n in range(1, MAX_BATCH + 1):
            np.testing.assert_allclose(runner.infer({INPUT: mnist_test.images[:n]})[LOGITS], whole[:n], atol=2e-5)
        gc.collect()
        assert cuda.kinds().count("executable") == runner._trt._contexts == GRAPHS_KEPT
    gc.collect()
    assert runner._trt._contexts == 0
    assert cuda.kinds() == []


def test_the_parts_of_a_call_are_timed_by_events_and_its_memory_is_told(
    release: Release, version: str, cuda: FakeCuda, mnist_test: Dataset
) -> None:
    with runner_of(release, version, cuda) as runner:
        start = time.perf_counter_ns()
        parts = runner.phases({INPUT: mnist_test.images[:5]})
        took = time.perf_counter_ns() - start
        assert list(parts) == ["copy_in", "compute", "copy_out"]
        assert all(part >= 0 for part in parts.values())
        assert 0 < sum(parts.values()) < took
        # image and two outputs at the largest batch, float32
        assert runner.device_memory_bytes() == MAX_BATCH * (28 * 28 + 2 * 4 * len(release.spec.labels))
        assert "event" not in cuda.kinds()
    assert cuda.kinds() == []


def test_an_answer_stays_when_the_next_is_asked(
    release: Release, version: str, cuda: FakeCuda, mnist_test: Dataset
) -> None:
    with runner_of(release, version, cuda) as runner:
        first = runner.infer({INPUT: mnist_test.images[:4]})[LOGITS]
        kept = first.copy()
        runner.infer({INPUT: mnist_test.images[4:8]})
        np.testing.assert_array_equal(first, kept)
        with pytest.raises(RunnerError, match="batch of 17 is outside 1 to 16"):
            runner.infer({INPUT: np.zeros((17, 28, 28), np.uint8)})


def test_of_several_profiles_that_is_taken_which_is_optimal_nearest(
    release: Release, version: str, cuda: FakeCuda
) -> None:
    with runner_of(release, version, cuda, opt_batches=(1, 8)) as runner:
        for n in (1, 2, 16):
            runner.infer({INPUT: np.zeros((n, 28, 28), np.uint8)})
        assert {n: ready.context._profile for n, ready in runner._ready.items()} == {1: 0, 2: 1, 16: 1}


def test_a_plan_for_less_than_the_graph_takes_is_asked_for_no_more(
    release: Release, version: str, cuda: FakeCuda
) -> None:
    trt = FakeTrt(version, cuda)
    data = engine_from_onnx(
        release.read(release.onnx("fp32")), Product(trt.__name__, trt), ["sm86"], "ab" * 32,
        release_profiles(release.spec, max_batch=4),
    ).data  # fmt: skip
    with (
        TrtRunner(data, release.spec, trt) as runner,
        pytest.raises(RunnerError, match="batch of 5 is outside 1 to 4"),
    ):
        runner.infer({INPUT: np.zeros((5, 28, 28), np.uint8)})


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("runtime", r"cannot start \(.*nullptr\): CUDA initialization failure with error: 35"),
        (
            "driver",
            r"does not load the plan: CUDA does not work here \(.*cudaError 35: CUDA driver .*update the NVIDIA driver",
        ),
        ("version", r"was built by another version \(.*expecting library version 10.3.0.30 got 10.9.0.34"),
        ("device", r"was built for another GPU \(.*expecting compute 8.9 got compute 8.6"),
        ("context", "made no execution context: .*OutOfMemory"),
        ("profile", "refused the profile: .*setOptimizationProfileAsync"),
        ("shape", r"refused the input shape \(3, 28, 28\): .*does not satisfy any profile"),
        ("address", "refused the buffer of image: .*setTensorAddress"),
        ("execute", "did not execute: .*launch failed"),
    ],
)
def test_every_refusal_is_a_sentence_and_frees_everything(
    release: Release, version: str, cuda: FakeCuda, fault: str, message: str
) -> None:
    runner = runner_of(release, version, cuda, fault)
    with pytest.raises(RunnerError, match=message) as caught, runner:
        runner.infer({INPUT: np.zeros((3, 28, 28), np.uint8)})
    assert str(caught.value).startswith(f"{runner.backend} {runner.version()} ")
    assert cuda.kinds() == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda plan: plan[:-1], "the plan is cut off or is none"),
        (lambda plan: b"junk" * 100, "the plan is cut off or is none"),
    ],
)
def test_a_damaged_plan_is_refused(release: Release, version: str, cuda: FakeCuda, damage, message: str) -> None:
    trt = FakeTrt(version, cuda)
    with pytest.raises(RunnerError, match=message), TrtRunner(damage(plan_of(release, trt)), release.spec, trt):
        pass


@pytest.mark.parametrize(("builds", "runs"), [VERSIONS[1:], VERSIONS[:0:-1]])
def test_a_plan_of_the_other_product_is_named(release: Release, cuda: FakeCuda, builds: str, runs: str) -> None:
    plan = plan_of(release, FakeTrt(builds, cuda))
    with (
        pytest.raises(RunnerError, match=f"it is a plan of {builds.partition('-')[0]} "),
        TrtRunner(plan, release.spec, FakeTrt(runs, cuda)),
    ):
        pass


def test_a_plan_with_other_inputs_is_refused(release: Release, version: str, cuda: FakeCuda) -> None:
    runner = runner_of(release, version, cuda, outputs=("logits", "embedding"))
    with pytest.raises(RunnerError, match=r"reads image and gives logits, probabilities; expected .*embedding"), runner:
        pass
    assert cuda.kinds() == []


@pytest.mark.parametrize(
    ("function", "at", "code"),
    [
        ("cudaStreamCreate", 1, cudaError_t.cudaErrorInsufficientDriver),
        ("cudaMallocHost", 1, cudaError_t.cudaErrorMemoryAllocation),
        ("cudaMallocHost", 3, cudaError_t.cudaErrorMemoryAllocation),
        ("cudaMalloc", 2, cudaError_t.cudaErrorMemoryAllocation),
        ("cudaMemcpyAsync", 1, cudaError_t.cudaErrorIllegalAddress),
        ("cudaMemcpyAsync", 5, cudaError_t.cudaErrorIllegalAddress),
        ("cudaStreamBeginCapture", 1, cudaError_t.cudaErrorStreamCaptureInvalidated),
        ("cudaStreamEndCapture", 1, cudaError_t.cudaErrorStreamCaptureInvalidated),
        ("cudaGraphInstantiate", 1, cudaError_t.cudaErrorMemoryAllocation),
        ("cudaGraphLaunch", 2, cudaError_t.cudaErrorIllegalAddress),
        ("cudaStreamSynchronize", 1, cudaError_t.cudaErrorIllegalAddress),
        ("cudaStreamSynchronize", 3, cudaError_t.cudaErrorIllegalAddress),
    ],
)
def test_every_code_of_cuda_is_looked_at_and_everything_is_freed(
    release: Release, version: str, monkeypatch: pytest.MonkeyPatch, function: str, at: int, code: cudaError_t
) -> None:
    cuda = FakeCuda({function: (code, at)})
    monkeypatch.setattr("hwr_export.runners.cuda.load_cuda", lambda: cuda)
    with pytest.raises(RunnerError, match=rf"^{function} failed: .*\({code.name}, {int(code)}\)"):  # noqa: SIM117
        with runner_of(release, version, cuda) as runner:
            for _ in range(2):
                runner.infer({INPUT: np.zeros((3, 28, 28), np.uint8)})
    assert cuda.kinds() == []


def test_what_cannot_be_freed_is_said_unless_something_failed_before(
    release: Release, version: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = {"cudaFree": (cudaError_t.cudaErrorIllegalAddress, 1)}
    monkeypatch.setattr("hwr_export.runners.cuda.load_cuda", lambda: cuda)
    cuda = FakeCuda(broken)
    with pytest.raises(RunnerError, match=r"^cudaFree failed"), runner_of(release, version, cuda):
        pass
    assert cuda.kinds() == ["device"]
    cuda = FakeCuda(broken)
    with pytest.raises(RunnerError, match="did not execute"), runner_of(release, version, cuda, "execute") as runner:
        runner.infer({INPUT: np.zeros((3, 28, 28), np.uint8)})
    assert cuda.kinds() == ["device"]


def test_rtx_keeps_the_kernels_it_compiled(release: Release, cuda: FakeCuda, tmp_path: Path) -> None:
    path = tmp_path / "new" / "kernels.bin"
    for _ in range(2):
        with runner_of(release, VERSIONS[2], cuda, cache=path) as runner:
            runner.infer({INPUT: np.zeros((1, 28, 28), np.uint8)})
        assert path.read_bytes() == b"kernels"
    assert "IRuntimeCache.deserialize" in runner._trt._calls
    path.write_bytes(b"of another version")
    with runner_of(release, VERSIONS[2], cuda, cache=path):
        pass
    assert path.read_bytes() == b"kernels"
    with pytest.raises(RunnerError, match=r"cannot be kept in .*: Not a directory"):  # noqa: SIM117
        with runner_of(release, VERSIONS[2], cuda, cache=path / "below" / "a file"):
            pass
    with pytest.raises(RunnerError, match="takes no runtime cache"), runner_of(release, VERSIONS[2], cuda, "cache"):
        pass
    assert cuda.kinds() == []


def test_tensorrt_itself_has_no_such_cache(release: Release, cuda: FakeCuda, tmp_path: Path) -> None:
    with runner_of(release, VERSIONS[0], cuda, cache=tmp_path / "kernels.bin"):
        pass
    assert list(tmp_path.glob("kernels*")) == []


def test_without_cuda_python_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr("hwr_export.runners.cuda.importlib.import_module", missing)
    with pytest.raises(UsageError, match=r"needs cuda-python .*: pip install 'cuda-python>=12.6.1'"):
        load_cuda()


def test_the_fake_cuda_knows_only_real_names() -> None:
    real = importlib.import_module("cuda.bindings.runtime")
    names = [n for n in dir(FakeCuda) if n.startswith("cuda")]
    assert len(names) > 15
    assert [n for n in names if not callable(getattr(real, n, None))] == []
    for fake in (cudaError_t, cudaMemcpyKind, cudaStreamCaptureMode):
        assert {m.name: m.value for m in fake} == {
            m.name: int(getattr(getattr(real, fake.__name__), m.name)) for m in fake
        }


def test_the_fake_tensorrt_knows_only_real_names(version: str, cuda: FakeCuda) -> None:
    trt = FakeTrt(version, cuda)
    for name in ("IInt8EntropyCalibrator2", "BuilderFlagOfMine"):
        with pytest.raises(AttributeError, match=name):
            getattr(trt, name)
    assert hasattr(trt, "ComputeCapability") == (version == VERSIONS[2])
    builder = trt.Builder(None)
    with pytest.raises(AttributeError, match="Builder has no 'build_engine'"):
        builder.build_engine()
    with pytest.raises(AttributeError, match="IBuilderConfig has no 'int8_calibrator'"):
        builder.create_builder_config().int8_calibrator = None
