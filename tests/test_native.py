"""Plans built, run and proved on the device, on fakes of TensorRT and CUDA: every step that can fail.

ONNX Runtime on the CPU stands for the execution, so that the verdicts are real; nothing here ran on a GPU.
"""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hwr_export.engine.recipe import BuildRecipe
from hwr_export.engine.stage import EngineConfig, build_engines
from hwr_export.errors import EngineError, ReleaseError, UsageError
from hwr_export.native import EXECUTED, NativeConfig, build_native
from hwr_export.release import Release
from tests.conftest import ROOT, one_json
from tests.engine.test_api import VERSIONS
from tests.fake_cuda import FakeCuda, cudaError_t
from tests.machine import RTX, Machine

PATH = "engines/model.fp32.native.engine"


@pytest.fixture(params=VERSIONS)
def machine(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    return Machine(monkeypatch, tmp_path, request.param)


@pytest.fixture
def build(release: Release, machine: Machine) -> Callable[..., tuple[dict, list[str]]]:
    """Build on the machine, reading the release anew; return the document and what was said."""

    def run(**changes: object) -> tuple[dict, list[str]]:
        said: list[str] = []
        config = replace(NativeConfig(product=machine.product), **changes)
        return build_native(Release.open(release.path), config, said.append), said

    return run


def snapshot(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in sorted(path.rglob("*")) if p.is_file()}


def test_a_plan_is_proved_and_then_recorded(release: Release, machine: Machine, build) -> None:
    document, said = build()
    assert document["verdict"] == "PASS"
    (engine,) = document["engines"]
    assert (engine["path"], engine["status"], engine["result"]) == (PATH, EXECUTED, "recorded")
    assert engine["parity"]["verdict"] == "PASS"
    assert engine["parity"]["agreement"] == engine["parity"]["n"] == 256
    assert engine["device"] == {
        "gpu": "Fake GPU", "compute_capability": "sm87" if machine.version != RTX else "sm86",
        "driver": "540.4.0", "l4t": None, "power_mode": None,
    }  # fmt: skip
    after = Release.open(release.path)
    assert all(s.ok for s in after.verify())
    kept = json.loads(after.read(after.entry(f"{PATH}.json")))
    assert kept == json.loads(json.dumps({k: v for k, v in engine.items() if k != "result"}))
    assert after.read(after.entry(PATH)).endswith(after.read(after.onnx("fp32")))
    assert "| executed |" in (release.path / "MODEL_CARD.md").read_text()
    assert any("running engines/model.fp32.native.engine against 256 goldens" in line for line in said)
    assert machine.cuda.kinds() == []


def test_a_plan_that_is_as_it_should_be_is_kept(release: Release, machine: Machine, build) -> None:
    build()
    before = snapshot(release.path)
    machine.has()
    document, said = build()
    assert [e["result"] for e in document["engines"]] == ["up to date"]
    assert said[-1] == f"{PATH} is up to date"
    assert machine.trt._calls == []
    assert snapshot(release.path) == before


def other_gpu(machine: Machine) -> None:
    machine.cuda.device["name"] = b"Another GPU"


@pytest.mark.parametrize(
    ("change", "options", "why"),
    [
        (lambda m: m.installs("550.54"), {}, "driver 540.4.0 -> 550.54"),
        (other_gpu, {}, "GPU Fake GPU -> Another GPU"),
        (lambda m: None, {"margin_pt": 0.2}, r"margin 0\.1 -> 0\.2"),
        (lambda m: None, {"recipe": BuildRecipe(opt_batches=(4,))}, r"recipe's opt_batches \[\] -> \[4\]"),
    ],
)
def test_it_is_rebuilt_where_something_changed_and_says_what(
    release: Release, machine: Machine, build, change, options: dict, why: str
) -> None:
    build()
    change(machine)
    document, said = build(**options)
    assert [e["result"] for e in document["engines"]] == ["recorded"]
    (line,) = [line for line in said if "again: " in line]
    assert re.search(f"again: {why}$", line), line


def test_another_product_or_version_rebuilds(release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(monkeypatch, tmp_path, VERSIONS[0])
    build_native(release, NativeConfig())
    for version, why in ((VERSIONS[1], "version 10.3.0.0 -> 11.4.0.0"), (RTX, "product tensorrt -> tensorrt_rtx; ")):
        machine.has(version=version)
        said: list[str] = []
        document = build_native(release, NativeConfig(product=machine.product), said.append)
        assert document["engines"][0]["product"] == machine.product
        assert any(f"again: {why}" in line for line in said), said


def test_a_changed_file_is_another_reason(release: Release, machine: Machine, build) -> None:
    build()
    (release.path / PATH).write_bytes(b"x")
    _, said = build()
    assert any("again: " in line and "not the file the manifest vouches for" in line for line in said)
    assert all(s.ok for s in Release.open(release.path).verify())


def test_a_plan_that_was_never_executed_is_no_proof(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Machine(monkeypatch, tmp_path, VERSIONS[0])
    build_engines(release, EngineConfig(targets=("native",)))
    said: list[str] = []
    document = build_native(release, NativeConfig(), said.append)
    assert document["engines"][0]["status"] == EXECUTED
    assert any("again: the plan that is there was never executed" in line for line in said)


BUILD_FAULTS = [
    ("parse", "cannot parse the ONNX file: node 3 'conv_of_mine' \\(NoSuchOperator\\): No importer"),
    ("build", "built no engine for .*: .*Could not find any implementation for node"),
    ("memory", "built no engine for .*: .*OutOfMemory"),
]


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(("fault", "message"), BUILD_FAULTS)
def test_a_build_that_fails_changes_nothing(
    release: Release, machine: Machine, build, fault: str, message: str, earlier: bool
) -> None:
    if earlier:
        build()
        machine.installs("550.54")
    before = snapshot(release.path)
    machine.has(fault)
    with pytest.raises(EngineError, match=message):
        build()
    assert snapshot(release.path) == before
    assert machine.cuda.kinds() == []


def test_ctrl_c_changes_nothing(release: Release, machine: Machine, build) -> None:
    before = snapshot(release.path)
    machine.has("interrupt")
    with pytest.raises(KeyboardInterrupt):
        build()
    assert snapshot(release.path) == before


def test_an_exception_of_the_bindings_changes_nothing(release: Release, machine: Machine, build) -> None:
    before = snapshot(release.path)
    machine.has("raises")
    with pytest.raises(RuntimeError, match="an exception of the bindings"):
        build()
    assert snapshot(release.path) == before


RUN_FAULTS = [
    (
        "runtime",
        "factory function returned nullptr): CUDA initialization failure with error: 35",
    ),
    ("driver", "does not load the plan: CUDA does not work here"),
    ("version", "it was built by another version"),
    ("device", "it was built for another GPU"),
    ("context", "made no execution context"),
    ("profile", "refused the profile"),
    ("shape", "refused the input shape"),
    ("address", "refused the buffer of image"),
    ("execute", "did not execute"),
    ("answers", "largest logit difference"),
]


@pytest.mark.parametrize("earlier", [False, True])
@pytest.mark.parametrize(("fault", "message"), RUN_FAULTS)
def test_a_plan_that_does_not_run_or_answers_wrongly_is_a_fail_and_not_recorded(
    release: Release, machine: Machine, build, fault: str, message: str, earlier: bool
) -> None:
    if earlier:
        build()
        machine.installs("550.54")
    before = snapshot(release.path)
    machine.has(fault)
    document, said = build()
    assert document["verdict"] == "FAIL"
    assert [e["result"] for e in document["engines"]] == ["not recorded"]
    assert message in " ".join(document["engines"][0]["parity"]["reasons"])
    kept = "the previous plan is kept" if earlier else "there is no plan"
    assert said[-1].startswith(f"{PATH} is not recorded, {kept}: FAIL: ")
    assert snapshot(release.path) == before
    assert machine.cuda.kinds() == []


@pytest.mark.parametrize("function", ["cudaMalloc", "cudaMemcpyAsync", "cudaGraphLaunch"])
def test_cuda_may_fail_in_the_middle(release: Release, machine: Machine, build, function: str) -> None:
    machine.has(cuda=FakeCuda({function: (cudaError_t.cudaErrorMemoryAllocation, 3)}))
    document, _ = build()
    assert document["verdict"] == "FAIL"
    assert f"{function} failed: out of memory" in document["engines"][0]["parity"]["reasons"][0]
    assert machine.cuda.kinds() == []
    assert not (release.path / "engines").exists()


@pytest.fixture
def digits(tmp_path: Path) -> Release:
    """The committed network: how an integer file does on one trained in this session is up to this machine."""
    path = tmp_path / "digits"
    shutil.copytree(ROOT / "exported" / "digits", path, ignore=shutil.ignore_patterns("engines"))
    return Release.open(path)


def test_what_the_goldens_cannot_decide_is_not_recorded_and_what_passed_is(digits: Release, machine: Machine) -> None:
    said: list[str] = []
    config = NativeConfig(product=machine.product, precisions=("fp32", "int8"))
    document = build_native(digits, config, said.append)
    assert document["verdict"] == "UNDECIDED"
    results = {e["precision"]: (e["parity"]["verdict"], e["result"]) for e in document["engines"]}
    assert results == {"fp32": ("PASS", "recorded"), "int8": ("UNDECIDED", "not recorded")}
    assert any("int8.native.engine is not recorded, there is no plan: UNDECIDED: accuracy changes" in s for s in said)
    margin = float(re.search(r"exclude a loss of (\d+\.\d+) points, so --margin above that", said[-1])[1]) + 0.01
    document = build_native(digits, replace(config, margin_pt=margin, precisions=("int8",)))
    assert [(e["parity"]["verdict"], e["result"]) for e in document["engines"]] == [("PASS", "recorded")]
    assert all(s.ok for s in Release.open(digits.path).verify())


@pytest.mark.parametrize(
    ("faults", "options", "code", "sentence"),
    [
        ((), ("--native",), 0, ""),
        ((), ("--target", "native"), 0, ""),
        (("answers",), ("--native",), 1, "is not recorded, there is no plan: FAIL: "),
        (("build",), ("--native",), 1, "built no engine for"),
        (("interrupt",), ("--native",), 130, ""),
        ((), ("--native", "--target", "sm86"), 2, "for the GPU of this machine alone, not for sm86 too; run twice"),
        ((), ("--native", "--precision", "int8-cpu"), 2, "that file is for ONNX Runtime on a CPU"),
    ],
)
def test_the_command(
    release_dir: Path,
    machine: Machine,
    hwr,
    faults: tuple[str, ...],
    options: tuple[str, ...],
    code: int,
    sentence: str,
) -> None:
    machine.has(*faults)
    result = hwr("trt", release_dir, *options, "--product", machine.product, "--json")
    assert result.exit_code == code, result.output
    assert " ".join(sentence.split()) in " ".join(result.stderr.split())
    if code == 0:
        assert one_json(result.stdout)["engines"][0]["result"] == "recorded"
        table = hwr("trt", release_dir, *options, "--product", machine.product)
        assert "PASS, up to date" in table.stdout
    else:
        assert not (release_dir / "engines").exists()
        assert machine.cuda.kinds() == []


def test_undecided_is_exit_code_3(digits: Release, machine: Machine, hwr) -> None:
    options = ("--native", "--product", machine.product, "--precision", "int8")
    result = hwr("trt", digits.path, *options)
    assert result.exit_code == 3, result.output
    assert "UNDECIDED, not recorded" in result.stdout
    assert hwr("trt", digits.path, *options, "--margin", "5").exit_code == 0


def test_tensorrt_is_preferred_where_both_are_installed(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Machine(monkeypatch, tmp_path, VERSIONS[1])  # the real tensorrt_rtx is installed too
    assert build_native(release, NativeConfig())["engines"][0]["product"] == "tensorrt"


def test_rtx_builds_for_its_own_gpus_alone(release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    machine = Machine(monkeypatch, tmp_path, RTX)
    machine.cuda.device["minor"] = 7
    with pytest.raises(UsageError, match=r"tensorrt_rtx does not build for sm87, only for sm75, .*--native"):
        build_native(release, NativeConfig())
    machine.cuda.device |= {"major": 5, "minor": 0}
    with pytest.raises(UsageError, match="there is no target 'sm50'"):
        build_native(release, NativeConfig())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (cudaError_t.cudaErrorNoDevice, "no NVIDIA GPU that works: .*no CUDA-capable device.*CUDA_VISIBLE_DEVICES"),
        (cudaError_t.cudaErrorInsufficientDriver, "no NVIDIA GPU that works: .*older than the CUDA of cuda-python"),
    ],
)
def test_without_a_gpu_it_says_so(release: Release, machine: Machine, build, code: cudaError_t, message: str) -> None:
    machine.has(cuda=FakeCuda({"cudaGetDeviceProperties": (code, 1)}))
    with pytest.raises(EngineError, match=message):
        build()


def test_a_read_only_place_is_said_before_the_build(release: Release, machine: Machine, build, monkeypatch) -> None:
    monkeypatch.setattr("hwr_export.release.os.access", lambda *_: False)
    with pytest.raises(ReleaseError, match="is not writable"):
        build()
    assert machine.trt._calls == []


def test_layers_that_run_in_float_where_the_file_quantises_are_told(
    quantized: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine(monkeypatch, tmp_path, VERSIONS[0])
    config = NativeConfig(precisions=("int8",), margin_pt=9)
    said: list[str] = []
    (engine,) = build_native(quantized, config, said.append)["engines"]
    assert engine["layers"]["in_float"] == []
    assert set(engine["layers"]["input_types"].values()) == {"int8"}
    machine.has("in float")
    machine.installs("550.54")
    (engine,) = build_native(quantized, config, said.append)["engines"]
    assert engine["result"] == "recorded"
    assert len(engine["layers"]["in_float"]) > 5
    assert said[-1].startswith("warning: engines/model.int8.native.engine computes in float what the file quantises")
    machine.has("inspector")
    machine.installs("560.1")
    (engine,) = build_native(quantized, config, said.append)["engines"]
    assert engine["result"] == "recorded"
    assert "answered in a form that was not expected" in engine["layers"]["problem"]
    assert "warning: the layers of engines/model.int8.native.engine cannot be read" in said[-1]


def test_timings_are_kept_for_the_next_build(release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    Machine(monkeypatch, tmp_path, VERSIONS[0])
    build_native(release, NativeConfig(timing_cache=tmp_path / "timings"))
    assert (tmp_path / "timings").read_bytes() == b"timings"
