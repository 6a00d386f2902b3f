"""What cannot become a plan is refused before the builder runs: the sentence, the exit code, and nothing changed."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwr_export.engine.preflight import preflight
from hwr_export.engine.rules import OPSETS, readable_opsets
from hwr_export.engine.stage import EngineConfig, build_engines
from hwr_export.engine.targets import TARGETS
from hwr_export.release import Release
from hwr_export.spec import INPUT
from tests.conftest import ROOT, one_json

Change = Callable[[onnx.ModelProto], bytes | None]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def give(release: Release, data: bytes, precision: str = "fp32") -> None:
    """Put a file into a release as if it had been exported so."""
    with release.change() as change:
        change.write(f"model.{precision}.onnx", data, "onnx", (), precision=precision)


def first_weight(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.data_type == TensorProto.FLOAT and len(t.dims) == 4)


def insert_first(model: onnx.ModelProto, node: onnx.NodeProto) -> None:
    nodes = [node, *(onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node)]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def truncated(model: onnx.ModelProto) -> bytes:
    data = model.SerializeToString()
    return data[: len(data) // 2]


def empty(model: onnx.ModelProto) -> bytes:
    return b""


def text(model: onnx.ModelProto) -> bytes:
    return b"this is no model"


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[3].op_type = "NoSuchOperator"
    model.graph.node[3].name = "conv_of_mine"


def foreign_domain(model: onnx.ModelProto) -> None:
    model.graph.node[3].domain = "com.example"


def spoil(model: onnx.ModelProto, value: float) -> None:
    weight = first_weight(model)
    values = numpy_helper.to_array(weight).copy()
    values.reshape(-1)[3] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))


def nan_weight(model: onnx.ModelProto) -> None:
    spoil(model, float("nan"))


def infinite_weight(model: onnx.ModelProto) -> None:
    spoil(model, float("inf"))


def external_data(model: onnx.ModelProto) -> None:
    weight = first_weight(model)
    weight.ClearField("raw_data")
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="weights.bin")


def opset_of_the_future(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 99


def int32_dequantizer(model: onnx.ModelProto) -> None:
    gemm = next(n for n in model.graph.node if n.op_type == "Gemm")
    model.graph.initializer.append(numpy_helper.from_array(np.zeros(10, np.int32), "bias_q"))
    model.graph.initializer.append(numpy_helper.from_array(np.float32(0.1), "bias_scale"))
    insert_first(model, helper.make_node("DequantizeLinear", ["bias_q", "bias_scale"], ["bias"], name="bias_dq"))
    next(n for n in model.graph.node if n.name == gemm.name).input[2] = "bias"


def transposed_before_cast(model: onnx.ModelProto) -> None:
    cast = next(n for n in model.graph.node if INPUT in n.input)
    cast.input[0] = "turned"
    insert_first(model, helper.make_node("Transpose", [INPUT], ["turned"], perm=[0, 2, 1], name="turn"))


def fixed_batch(model: onnx.ModelProto) -> None:
    dim = model.graph.input[0].type.tensor_type.shape.dim[0]
    dim.ClearField("dim_param")
    dim.dim_value = 2


def other_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 32


def other_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.UINT8, ["batch", 28, 28]))


BAD: list[tuple[Change, str]] = [
    (truncated, "it is no ONNX file or was cut off (DecodeError)"),
    (text, "it is no ONNX file or was cut off"),
    (empty, "it holds no graph, or was cut off before it"),
    (unknown_operator, "conv_of_mine: NoSuchOperator is no operator of opset 20; express it in standard ones"),
    (foreign_domain, "is of the domain com.example, which is not ONNX"),
    (nan_weight, "a weight is NaN or infinite, and so would be every answer; export it again"),
    (infinite_weight, "a weight is NaN or infinite"),
    (external_data, "is kept in weights.bin, and the builder gets this file alone; put all into one"),
    (opset_of_the_future, "the file's opset is 99, tensorrt_rtx 1.7"),
    (int32_dequantizer, "bias_dq: DequantizeLinear of int32 (a quantised bias); leave biases in float"),
    (transposed_before_cast, "turn: Transpose reads the uint8 input"),
    (fixed_batch, "the graph takes batches of 2 only and the profile asks for 1 to 16; export it with a dynamic batch"),
    (other_size, "['batch', 32, 28]"),
    (other_input, "mask ['batch', 28, 28]"),
]


@pytest.mark.parametrize(("change", "sentence"), BAD, ids=[b[0].__name__ for b in BAD])
def test_a_bad_file_is_refused_before_the_build(
    release_dir: Path, hwr, monkeypatch: pytest.MonkeyPatch, change: Change, sentence: str
) -> None:
    release = Release.open(release_dir)
    build_engines(release, EngineConfig(targets=("sm86",)))
    model = onnx.load_model_from_string(release.read(release.onnx("fp32")))
    changed = change(model)
    give(release, model.SerializeToString() if changed is None else changed)
    before = contents(release_dir.parent)
    assert "tiny/engines/model.fp32.sm86.engine" in before

    monkeypatch.setattr("hwr_export.engine.stage.engine_from_onnx", lambda *_: pytest.fail("the builder was run"))
    result = hwr("trt", release_dir, "--target", "sm86")
    assert result.exit_code == 1
    assert sentence in result.stderr
    assert "model.fp32.onnx would not build for sm86" in result.stderr
    assert contents(release_dir.parent) == before

    told = hwr("doctor", release_dir, "--target", "rtx-3090", "--json")
    assert told.exit_code == 1
    (row,) = one_json(told.stdout)["files"]
    assert row["status"] == "would fail"
    assert any(sentence in f"{f['node']}: {f['sentence']}" for f in row["findings"])


def test_the_cpu_file_is_refused_in_one_sentence(quantized: Release, hwr) -> None:
    give(quantized, quantized.read(quantized.onnx("int8-cpu")), "int8")
    result = hwr("trt", quantized.path, "--target", "sm86")
    assert result.exit_code == 1
    assert "model.int8.onnx would not build for sm86: it quantises activations as uint8" in result.stderr
    assert "give TensorRT the file that `hwr-export quantize` writes as model.int8.onnx. Nothing" in result.stderr


def test_turing_has_no_float32_matrix_product(release: Release, hwr) -> None:
    """The builder is asked in a process of its own: a refusal spoils the next build of the same process."""
    code = (
        "import sys; from pathlib import Path; from hwr_export.engine.build import engine_from_onnx; "
        "from hwr_export.engine.products import load_product; from hwr_export.release import Release; "
        "release = Release.open(Path(sys.argv[1])); product = load_product(None, ['sm75']); "
        "from hwr_export.engine.options import release_profiles; "
        "model, profiles = release.read(release.onnx('fp32')), release_profiles(release.spec); "
        "engine_from_onnx(model, product, ['sm75'], 'ab' * 32, profiles)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, release.path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert "FP32 GEMM is not supported" in done.stderr
    result = hwr("trt", release.path, "--target", "t4")
    assert result.exit_code == 1
    assert "Gemm computes in float32, which TensorRT-RTX cannot on sm75; build the half-precision" in result.stderr
    assert hwr("doctor", release.path, "--target", "t4").exit_code == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--target", "jetson-thor", "--product", "tensorrt_rtx"), "does not build for jetson-thor (sm110), only for"),
        (("--target", "sm90", "--product", "tensorrt_rtx"), "copy the release to that device and build on it"),
        (("--target", "rtx-9090"), "there is no target 'rtx-9090'; there are: sm75, sm80"),
        (("--opt-batch", "17"), "--opt-batch must be 1 to 16, got 17"),
        (("--precision", "fp16"), "has no fp16 model; it has: fp32"),
        (("--precision", "int8-cpu"), "that file is for ONNX Runtime on a CPU; give TensorRT int8"),
    ],
)
def test_words_that_do_not_fit(release_dir: Path, hwr, arguments: tuple[str, ...], sentence: str) -> None:
    before = contents(release_dir.parent)
    result = hwr("trt", release_dir, *arguments)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert contents(release_dir.parent) == before


def test_a_jetson_is_judged_by_its_own_tensorrt(release: Release, hwr) -> None:
    result = hwr("doctor", release.path, "--target", "jetson-orin-nano", "--json")
    assert result.exit_code == 0
    assert [f["status"] for f in one_json(result.stdout)["files"]] == ["nothing against it"]
    model = onnx.load_model_from_string(release.read(release.onnx("fp32")))
    model.opset_import[0].version = 22
    give(release, model.SerializeToString())
    result = hwr("doctor", release.path, "--target", "jetson-orin-nano", "--target", "sm86")
    assert result.exit_code == 1
    assert "tensorrt 10.3 reads 9 to 20" in " ".join(result.stdout.split())


def test_a_version_that_was_never_met_is_said(release: Release) -> None:
    model = release.read(release.onnx("fp32"))
    for product, versions in OPSETS.items():
        for (major, minor), opsets in versions.items():
            assert 20 in opsets
            assert preflight(model, release.spec, [], product, f"{major}.{minor}", (1, 1, 16)) == []
    assert [readable_opsets("tensorrt", v) for v in ("10.3.0", "10.14.1", "10.15.1", "11.4")] == [
        range(9, 21), range(9, 21), range(9, 25), range(9, 26)
    ]  # fmt: skip
    (found,) = preflight(model, release.spec, [], "tensorrt", "12.0.1", (1, 1, 16))
    assert "12.0.1 is not a version this was written for" in found.sentence


def test_rtx_for_a_jetson_and_a_profile_out_of_order(release: Release) -> None:
    model = release.read(release.onnx("fp32"))
    found = preflight(model, release.spec, [TARGETS["sm87"]], "tensorrt_rtx", "1.7.1", (1, 32, 16))
    assert [f.rule for f in found] == ["target", "batch"]
    assert "not in order within 1 to 16" in found[1].sentence


def test_release_and_target_go_together(release_dir: Path, hwr) -> None:
    assert hwr("doctor", release_dir).exit_code == 2
    assert hwr("doctor", "--target", "sm86").exit_code == 2


# -- the world fails under the build: the previous plan is kept, and no part of a new one is left ----------------------


@pytest.fixture
def built(release_dir: Path) -> Path:
    build_engines(Release.open(release_dir), EngineConfig(targets=("sm86",)))
    return release_dir


def test_a_full_disk(built: Path) -> None:
    before = contents(built.parent)
    limit = (built / "engines" / "model.fp32.sm86.engine").stat().st_size // 2
    done = subprocess.run(
        [sys.executable, "-m", "hwr_export", "trt", built, "--target", "sm86"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    assert "File too large; nothing was changed" in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(built.parent) == before


def test_a_directory_that_cannot_be_written(built: Path, hwr, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(built.parent)
    monkeypatch.setattr(os, "access", lambda _, mode, **__: mode != os.W_OK)  # root may write anywhere
    result = hwr("trt", built, "--target", "sm86")
    assert result.exit_code == 2
    assert "is not writable" in result.stderr
    assert contents(built.parent) == before


def test_killed_in_the_build(built: Path) -> None:
    """The process ends itself, as by the kernel, at the builder's first report of progress."""
    before = contents(built)
    code = (
        "import os, signal, sys; from pathlib import Path; from hwr_export.release import Release; "
        "from hwr_export.engine.stage import EngineConfig, build_engines; "
        "build_engines(Release.open(Path(sys.argv[1])), EngineConfig(targets=('sm86', 'sm89')), "
        "progress=lambda *_: os.kill(os.getpid(), signal.SIGKILL))"
    )
    done = subprocess.run([sys.executable, "-c", code, built], capture_output=True, check=False, cwd=ROOT)
    assert done.returncode == -signal.SIGKILL
    assert contents(built) == before
    assert all(s.ok for s in Release.open(built).verify())
