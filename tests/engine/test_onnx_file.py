"""`trt MODEL.onnx`: a stranger's file becomes a plan with a sidecar, or a sentence, an exit code and nothing.

Everything that builds is built by TensorRT-RTX. A file that only its builder refuses goes to a process of its own.
"""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, helper

from hwr_export.engine.plan import read_rtx_header, read_rtx_layers
from hwr_export.engine.preflight import preflight_file
from hwr_export.engine.shapes import misfits, read_shapes
from hwr_export.errors import UsageError
from hwr_export.files import sha256_bytes
from hwr_export.release import Release
from tests.conftest import one_json
from tests.engine import strangers
from tests.engine.strangers import save, zoo_mnist

# -- what builds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("opset", range(7, 14))
def test_the_zoos_mnist_builds_at_every_opset_of_its_time(tmp_path: Path, hwr, opset: int) -> None:
    model = zoo_mnist(opset)
    onnx.checker.check_model(model)
    path = save(tmp_path, model, "mnist.onnx")
    result = hwr("trt", path, "-o", tmp_path / "mnist.engine", "--target", "rtx-3090", "--json")
    assert result.exit_code == 0, result.output
    (sidecar,) = one_json(result.stdout)["engines"]
    plan = (tmp_path / "mnist.engine").read_bytes()
    assert sidecar["path"] == str(tmp_path / "mnist.engine")
    assert json.loads((tmp_path / "mnist.engine.json").read_text()) == sidecar | {"path": "mnist.engine"}
    assert sidecar["targets"] == ["sm86"]
    assert sidecar["sha256"] == sha256_bytes(plan)
    assert sidecar["size_bytes"] == read_rtx_header(plan).size_bytes
    assert sidecar["source_files"] == {"mnist.onnx": sha256_bytes(path.read_bytes())}
    assert sidecar["source_onnx_sha256"].encode() in plan
    assert sidecar["profiles"] == []
    convolutions = {f"node_of_Convolution{n}_Output_0": "float" for n in (28, 110)}
    assert sidecar["layers"]["input_types"].items() >= convolutions.items()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["mnist.engine", "mnist.engine.json", "mnist.onnx"]


def test_one_plan_for_each_target_beside_the_file(tmp_path: Path, hwr) -> None:
    path = save(tmp_path, zoo_mnist(8), "mnist.onnx")
    assert hwr("trt", path, "--target", "sm86", "--target", "rtx-5090").exit_code == 0
    assert hwr("trt", path, "--target", "sm86", "--target", "rtx-5090", "--together").exit_code == 0
    names = {"mnist.sm86.engine", "mnist.sm120.engine", "mnist.sm86-sm120.engine"}
    assert {p.name for p in tmp_path.glob("*.engine")} == names
    assert {p.name for p in tmp_path.glob("*.json")} == {f"{name}.json" for name in names}


@pytest.mark.parametrize("opset", [9, 12])
def test_a_resnet_of_the_legacy_exporter(tmp_path: Path, hwr, opset: int) -> None:
    path = save(tmp_path, strangers.legacy_resnet18(opset), "resnet18.onnx")
    refused = hwr("trt", path, "--target", "sm86")
    assert refused.exit_code == 1
    words = " ".join(refused.stderr.split())
    assert "input: its shape is batchx3x64x64 and a plan needs sizes for batch" in words
    assert words.endswith("--shape input=1x3x64x64:1x3x64x64:8x3x64x64. Nothing was built")
    assert not list(tmp_path.glob("*.engine"))

    shapes = "input=1x3x64x64:2x3x64x64:8x3x64x64"
    result = hwr("trt", path, "--target", "sm86", "--shape", shapes, "--json")
    assert result.exit_code == 0, result.output
    (sidecar,) = one_json(result.stdout)["engines"]
    assert sidecar["profiles"] == [{"input": {"min": [1, 3, 64, 64], "opt": [2, 3, 64, 64], "max": [8, 3, 64, 64]}}]
    layers = read_rtx_layers((tmp_path / "resnet18.sm86.engine").read_bytes())
    assert len(layers) == 21  # 20 convolutions and the classifier
    assert set(layers.values()) == {"float"}


OLD: dict[str, Callable[[], ModelProto]] = {
    **{f"batch norm and dropout of opset {n}": lambda n=n: strangers.normalised(n) for n in (6, 7, 8, 9, 10, 12, 14)},
    "weights among the inputs, IR 4": lambda: zoo_mnist(9, ir=4),
    "the standard's domain by its long name": lambda: domains(helper.make_opsetid("ai.onnx", 8)),
    "another domain first": lambda: domains(helper.make_opsetid("ai.onnx.ml", 1), helper.make_opsetid("", 8)),
    "an upsampling": lambda: strangers.one("Upsample", 8, scales=[1.0, 1.0, 2.0, 2.0]),
    "an operator that the standard dropped": lambda: strangers.one("ImageScaler", 8, scale=1.0, bias=[0.0] * 4),
    "a function of its own": strangers.own_function,
}


def domains(*imports: onnx.OperatorSetIdProto) -> ModelProto:
    model = zoo_mnist(8)
    del model.opset_import[:]
    model.opset_import.extend(imports)
    return model


@pytest.mark.parametrize("name", OLD)
def test_old_ways_build(tmp_path: Path, hwr, name: str) -> None:
    result = hwr("trt", save(tmp_path, OLD[name]()), "--target", "sm86")
    assert result.exit_code == 0, result.output
    assert read_rtx_header((tmp_path / "model.sm86.engine").read_bytes())


def test_a_file_that_keeps_its_weights_beside_it(tmp_path: Path, hwr) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(zoo_mnist(12), path, save_as_external_data=True, location="model.bin", size_threshold=0)
    result = hwr("trt", path, "--target", "sm86", "--json")
    assert result.exit_code == 0, result.output
    (sidecar,) = one_json(result.stdout)["engines"]
    assert sidecar["source_files"] == {
        n: sha256_bytes((tmp_path / n).read_bytes()) for n in ("model.onnx", "model.bin")
    }


def test_a_quantised_file_of_a_release_is_a_file_like_others(quantized: Release, tmp_path: Path, hwr) -> None:
    path = save(tmp_path, quantized.read(quantized.onnx("int8")))
    result = hwr("trt", path, "--target", "sm86", "--shape", "image=1x28x28:1x28x28:16x28x28", "--json")
    assert result.exit_code == 0, result.output
    (sidecar,) = one_json(result.stdout)["engines"]
    assert set(sidecar["layers"]["input_types"].values()) == {"int8"}
    assert sidecar["layers"]["in_float"] == []


def test_converting_is_what_the_sentence_says_it_is(tmp_path: Path, hwr) -> None:
    """The fix that a file of opset 6 gets is run as it stands in the sentence."""
    path = save(tmp_path, zoo_mnist(6))
    refused = hwr("trt", path, "--target", "sm86")
    assert refused.exit_code == 1
    words = " ".join(refused.stderr.split())
    assert "Plus30_Output_0: Add of opset 6 is not read, only of 7 and later; convert the file: onnx.save(" in words
    import onnx.version_converter

    exec(words.split("convert the file: ")[1].split(". Nothing")[0], {"onnx": onnx, "PATH": path})
    assert hwr("trt", path, "--target", "sm86").exit_code == 0


@pytest.mark.parametrize(("opset", "fine"), [(8, False), (9, True), (12, True), (20, True), (21, False)])
def test_the_tensorrt_of_a_jetson_reads_other_opsets(opset: int, fine: bool) -> None:
    found = preflight_file(zoo_mnist(opset, ir=8).SerializeToString(), {}, [], "tensorrt", "10.3.0")
    assert [f.rule for f in found] == ([] if fine else ["opset"])
    assert all(f"opset is {opset}, tensorrt 10.3.0 reads 9 to 20; export it with" in f.sentence for f in found)


# -- the words of --shape ----------------------------------------------------------------------------------------------


@given(st.lists(st.integers(1, 99), min_size=1, max_size=5), st.from_regex(r"[A-Za-z_/:.=0-9]+", fullmatch=True))
def test_shapes_are_read_as_they_are_written(shape: list[int], name: str) -> None:
    text = "x".join(map(str, shape))
    larger = "x".join(str(side + 1) for side in shape)
    assert read_shapes([f"{name}={text}"]) == {name: (tuple(shape),) * 3}
    smallest, usual, largest = read_shapes([f"{name}={text}:{text}:{larger}"])[name]
    assert (smallest, usual, largest) == (tuple(shape), tuple(shape), tuple(side + 1 for side in shape))


@given(st.lists(st.one_of(st.integers(-1, 9), st.sampled_from(["batch", "height"])), min_size=1, max_size=4))
def test_the_shape_that_a_sentence_proposes_fits(axes: list[str | int]) -> None:
    (*_, said) = ("", *(sentence for _, sentence in misfits({"x": axes}, {})))
    assert bool(said) == any(isinstance(axis, str) or axis <= 0 for axis in axes)
    proposed = read_shapes([said.split("--shape ")[1]] if said else [])
    assert list(misfits({"x": axes}, proposed)) == []


def test_a_number_alone_is_no_shape_for_a_name() -> None:
    with pytest.raises(UsageError, match="--shape =1x2 is not of the form"):
        read_shapes(["=1x2"])
