"""Plans on a real GPU, with every product installed. All of it is skipped where there is none."""

import numpy as np
import pytest

from hwr_export.datasets import Dataset
from hwr_export.engine.device import find_device
from hwr_export.engine.products import installed_products, load_product
from hwr_export.engine.targets import NATIVE, RTX, RTX_CAPABILITIES
from hwr_export.errors import HwrError, RunnerError
from hwr_export.native import NativeConfig, build_native
from hwr_export.parity import ParityConfig, parity
from hwr_export.release import Release
from hwr_export.runners import onnx_runner
from hwr_export.runners.trt import GRAPHS_KEPT, TrtRunner
from hwr_export.spec import INPUT, LOGITS
from tests.conftest import MAX_BATCH


def capability() -> str:
    """Return this machine's compute capability; empty where it has no GPU that works."""
    try:
        return find_device().compute_capability
    except HwrError:
        return ""


GPU = capability()
pytestmark = [pytest.mark.gpu, pytest.mark.skipif(not GPU, reason="no NVIDIA GPU")]


@pytest.fixture(params=installed_products())
def product(request: pytest.FixtureRequest) -> str:
    if request.param == RTX and GPU not in RTX_CAPABILITIES:
        pytest.skip(f"TensorRT-RTX builds for no {GPU}")
    return request.param


def plan_of(release: Release, product: str) -> bytes:
    (engine,) = build_native(release, NativeConfig(product=product))["engines"]
    assert engine["result"] == "recorded", engine["parity"]["reasons"]
    return release.read(release.entry(engine["path"]))


def module(product: str):
    return load_product(product, [GPU if product == RTX else NATIVE]).module


def test_a_plan_is_built_proved_recorded_kept_and_compared(release: Release, product: str) -> None:
    plan_of(release, product)
    again = build_native(release, NativeConfig(product=product))
    assert [e["result"] for e in again["engines"]] == ["up to date"]
    document = parity(release, ParityConfig(baseline="goldens", backends=(product,)))
    assert document["verdict"] == "PASS", document["cells"]
    assert all(s.ok for s in Release.open(release.path).verify())


def test_every_batch_size_answers_as_the_cpu(release: Release, product: str, mnist_test: Dataset, tmp_path) -> None:
    images = mnist_test.images[:MAX_BATCH]
    with onnx_runner("onnxruntime", release.read(release.onnx("fp32")), release.spec) as cpu:
        expected = cpu.infer({INPUT: images})[LOGITS]
    assert MAX_BATCH > GRAPHS_KEPT
    for _ in range(2):  # the second time with the kernels of the first
        with TrtRunner(plan_of(release, product), release.spec, module(product), tmp_path / "kernels") as runner:
            for n in (*range(1, MAX_BATCH + 1), 1, 3):
                found = runner.infer({INPUT: images[:n]})[LOGITS]
                np.testing.assert_allclose(found, expected[:n], atol=1e-3)
                np.testing.assert_array_equal(found, runner.infer({INPUT: images[:n]})[LOGITS])


def test_a_damaged_plan_is_refused(release: Release, product: str) -> None:
    with (
        pytest.raises(RunnerError, match="does not load the plan"),
        TrtRunner(plan_of(release, product)[:-100], release.spec, module(product)),
    ):
        pass
