"""Which of a release's plans run on a machine: on fakes, and on this one, which has no GPU. Nothing ran on a GPU."""

import json
from pathlib import Path

import pytest

from hwr_export.engine.here import plans_here
from hwr_export.engine.stage import EngineConfig, build_engines
from hwr_export.errors import UsageError
from hwr_export.native import NativeConfig, build_native
from hwr_export.parity import ParityConfig, parity
from hwr_export.release import Release
from tests.conftest import backends_here, one_json
from tests.engine.test_api import VERSIONS
from tests.machine import RTX, Machine
from tests.test_native import PATH

RTX_PATH = "engines/model.fp32.sm86.engine"


@pytest.fixture(params=VERSIONS)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path, request.param)


def compare(release: Release, *backends: str) -> dict:
    return parity(Release.open(release.path), ParityConfig(baseline="goldens", backends=backends))


def test_a_plan_of_this_machine_gets_a_cell_of_its_own(release: Release, machine: Machine) -> None:
    build_native(release, NativeConfig(product=machine.product))
    document = compare(release)
    assert document["not_run"] == []
    (cell,) = [c for c in document["cells"] if c["backend"] == machine.product]
    assert (cell["verdict"], cell["file"]["path"]) == ("PASS", PATH)
    assert cell["backend_version"] == machine.trt.__version__
    assert {c["backend"] for c in document["cells"]} == {*backends_here(), machine.product}
    assert [c["backend"] for c in compare(release, machine.product)["cells"]] == [machine.product]
    assert {c["backend"] for c in compare(release, "onnxruntime")["cells"]} == {"onnxruntime"}
    assert all(s.ok for s in Release.open(release.path).verify())
    assert machine.cuda.kinds() == []


def test_a_plan_that_fails_here_is_a_fail(release: Release, machine: Machine) -> None:
    build_native(release, NativeConfig(product=machine.product))
    machine.has("device")
    document = compare(release, machine.product)
    assert document["verdict"] == "FAIL"
    assert "it was built for another GPU" in document["cells"][0]["reasons"][0]
    assert "has cells of its own" in document["cells"][0]["stage_reason"]


def test_a_changed_plan_is_not_loaded(release: Release, machine: Machine) -> None:
    build_native(release, NativeConfig(product=machine.product))
    (release.path / PATH).write_bytes(b"junk" * 50)
    machine.has()
    (cell,) = compare(release, machine.product)["cells"]
    assert cell["verdict"] == "FAIL"
    assert "is not the file the manifest vouches for" in cell["reasons"][0]
    assert not any(call.startswith("Runtime") for call in machine.trt._calls)


def test_a_plan_built_elsewhere_runs_on_the_gpu_it_is_for(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine(monkeypatch, tmp_path, RTX)
    build_engines(release, EngineConfig(targets=("sm86", "sm89")))
    document = compare(release, "tensorrt_rtx")
    assert [(c["file"]["path"], c["verdict"]) for c in document["cells"]] == [(RTX_PATH, "PASS")]
    reason = "it is for sm89 and this GPU is sm86"
    assert document["not_run"] == [
        {"path": "engines/model.fp32.sm89.engine", "backend": "tensorrt_rtx", "reason": reason}
    ]
    machine.trt.__version__ = "1.8.0.1"
    with pytest.raises(UsageError, match=r"is of tensorrt_rtx 1\.7\.1\.0 and 1\.8\.0\.1 is installed; build it again"):
        compare(release, "tensorrt_rtx")


def test_here_without_a_gpu_they_are_listed_with_the_reason(release_dir: Path, hwr) -> None:
    build_engines(Release.open(release_dir), EngineConfig(targets=("sm86",)))
    result = hwr("parity", release_dir, "--baseline", "goldens", "--json")
    assert result.exit_code == 0, result.output
    (plan,) = one_json(result.stdout)["not_run"]
    assert plan["path"] == RTX_PATH
    assert "there is no NVIDIA GPU that works" in plan["reason"]
    assert f"not run here: {RTX_PATH}: " in hwr("parity", release_dir, "--baseline", "goldens").stdout
    asked = hwr("parity", release_dir, "--baseline", "goldens", "--backend", "tensorrt_rtx")
    assert asked.exit_code == 2
    assert "no plan of tensorrt_rtx runs here" in asked.stderr


def test_what_is_no_whole_plan_is_told(release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Machine(monkeypatch, tmp_path, RTX)
    with pytest.raises(UsageError, match="no plan of tensorrt runs here: the release has none"):
        plans_here(release, ["tensorrt"])
    with release.change() as change:
        change.write("engines/a.engine", b"x", "engine")
        change.write("engines/b.engine", b"y", "engine")
        facts = {"product": "tensorrt_rtx", "product_version": "1.7.1.0", "targets": ["sm86"]}
        change.write("engines/b.engine.json", json.dumps(facts).encode(), "sidecar")
    runnable, others = plans_here(release)
    assert runnable == []
    assert [o["reason"] for o in others] == [
        "it has no sidecar; build it again",
        "the ONNX file that it was built from is not in the release any more; build it again",
    ]
