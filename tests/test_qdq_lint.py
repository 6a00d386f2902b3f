"""Each rule has a file that breaks it, and the builder of TensorRT-RTX says what it makes of that file."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwr_export.engine.build import engine_from_onnx
from hwr_export.engine.options import release_profiles
from hwr_export.engine.products import load_product
from hwr_export.errors import EngineError, QuantizationError, UsageError
from hwr_export.qdq import DQ, Q
from hwr_export.qdq_lint import lint, lint_file
from hwr_export.release import Release
from tests.conftest import ROOT, one_json

Change = Callable[[onnx.ModelProto], None]


@pytest.fixture
def model(quantized: Release) -> onnx.ModelProto:
    return onnx.load_model_from_string(quantized.read(quantized.onnx("int8")))


def node_of(model: onnx.ModelProto, op: str, number: int = 0) -> onnx.NodeProto:
    return [node for node in model.graph.node if node.op_type == op][number]


def array_of(model: onnx.ModelProto, name: str) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))


def add(model: onnx.ModelProto, name: str, value: object) -> str:
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(value), name))
    return name


def insert(model: onnx.ModelProto, before: onnx.NodeProto, node: onnx.NodeProto) -> None:
    nodes = list(model.graph.node)
    at = nodes.index(before)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in [*nodes[:at], node, *nodes[at:]]]
    model.graph.ClearField("node")
    model.graph.node.extend(copies)


def pair(model: onnx.ModelProto, number: int = 1) -> tuple[onnx.NodeProto, onnx.NodeProto]:
    """Return a QuantizeLinear of activations and the DequantizeLinear behind it."""
    quantizer = node_of(model, Q, number)
    return quantizer, next(n for n in model.graph.node if n.op_type == DQ and n.input[0] == quantizer.output[0])


def set_pair(model: onnx.ModelProto, scale: object = None, zero: object = None) -> None:
    for node in pair(model):
        inputs = list(node.input) if len(node.input) == 3 else [*node.input, ""]
        if scale is not None:
            inputs[1] = add(model, f"scale_{node.op_type}", scale)
        if zero is not None:
            inputs[2] = add(model, f"zero_{node.op_type}", zero)
        del node.input[:]
        node.input.extend(inputs if inputs[2] else inputs[:2])


def weight_of(model: onnx.ModelProto, layer: onnx.NodeProto) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.output[0] == layer.input[1])


def int32_bias(model: onnx.ModelProto) -> None:
    conv = node_of(model, "Conv")
    size = array_of(model, conv.input[2]).size
    inputs = [add(model, "bias", np.zeros(size, np.int32)), add(model, "bias_scale", np.float32(0.1))]
    conv.input[2] = "bias_float"
    insert(model, conv, helper.make_node(DQ, inputs, ["bias_float"], name="bias_dq"))


def zero_point(model: onnx.ModelProto) -> None:
    set_pair(model, zero=np.int8(5))


def uint8_activations(model: onnx.ModelProto) -> None:
    set_pair(model, zero=np.uint8(0))


def uint8_by_default(model: onnx.ModelProto) -> None:
    for node in pair(model):
        del node.input[2:]


def per_channel_activations(model: onnx.ModelProto) -> None:
    set_pair(model, scale=np.full(8, 0.1, np.float32), zero=np.zeros(8, np.int8))


def asymmetric_weights(model: onnx.ModelProto) -> None:
    dequantizer = weight_of(model, node_of(model, "Conv", 1))
    size = array_of(model, dequantizer.input[1]).size
    dequantizer.input.append(add(model, "zero", np.full(size, 3, np.int8)))


def wrong_axis(model: onnx.ModelProto) -> None:
    dequantizer = weight_of(model, node_of(model, "Conv", 1))
    channels = array_of(model, dequantizer.input[0]).shape[1]
    dequantizer.input[1] = add(model, "scales", np.full(channels, 0.1, np.float32))
    dequantizer.attribute[0].i = 1


def wrong_axis_of_gemm(model: onnx.ModelProto) -> None:
    dequantizer = weight_of(model, node_of(model, "Gemm"))
    features = array_of(model, dequantizer.input[0]).shape[1]
    dequantizer.input[1] = add(model, "scales", np.full(features, 0.1, np.float32))
    dequantizer.attribute[0].i = 1


def no_dequantize(model: onnx.ModelProto) -> None:
    residual = next(n for n in model.graph.node if n.op_type == "Add" and n.input[1] in _made_by(model, DQ))
    dequantizer = next(n for n in model.graph.node if n.output[0] == residual.input[1])
    residual.input[1] = dequantizer.input[0]


def old_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 12


def uint8_moved(model: onnx.ModelProto) -> None:
    cast = node_of(model, "Cast")
    cast.input[0] = "moved"
    insert(model, cast, helper.make_node("Transpose", ["image"], ["moved"], name="turn", perm=[0, 2, 1]))


def foreign_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    relu = node_of(model, "Relu")
    relu.op_type, relu.domain = "FastGelu", "com.microsoft"


def fused_convolution(model: onnx.ModelProto) -> None:
    conv = node_of(model, "Conv", 1)
    quantizer, _ = pair(model)
    weight = weight_of(model, conv)
    zero = add(model, "zeros", np.zeros(array_of(model, weight.input[1]).size, np.int8))
    scale, none = add(model, "out_scale", np.float32(0.1)), add(model, "none", np.int8(0))
    inputs = [quantizer.output[0], quantizer.input[1], none, weight.input[0], weight.input[1], zero, scale, none]
    node = helper.make_node("QLinearConv", inputs, ["fused"], name="fused", pads=[1, 1, 1, 1], strides=[2, 2])
    insert(model, conv, node)
    dequantize = helper.make_node(DQ, ["fused", scale], [conv.output[0]], name="after")
    insert(model, node_of(model, "Conv", 1), dequantize)
    model.graph.node.remove(node_of(model, "Conv", 1))


def zero_scale(model: onnx.ModelProto) -> None:
    set_pair(model, scale=np.float32(0))


def computed_scale(model: onnx.ModelProto) -> None:
    quantizer, dequantizer = pair(model)
    quantizer.input[1] = dequantizer.input[1] = "largest"
    insert(model, quantizer, helper.make_node("ReduceMax", [quantizer.input[0]], ["largest"], name="max", keepdims=0))


def _made_by(model: onnx.ModelProto, op: str) -> set[str]:
    return {n.output[0] for n in model.graph.node if n.op_type == op}


# What the builder says: words of its refusal, or None where it builds the file.
BAD: list[tuple[Change, str, str, str | None]] = [
    (int32_bias, "int32", "a quantised bias", "type Int32"),
    (zero_point, "zero-point", "every zero point must be 0", "Non-zero zero point"),
    (uint8_activations, "uint8", "activations are uint8", None),
    (uint8_by_default, "uint8", "activations are uint8", None),
    (per_channel_activations, "per-channel-activations", "8 scales; they may have one only", None),
    (asymmetric_weights, "asymmetric-weights", "weights have the zero point 3", "Non-zero zero point"),
    (wrong_axis, "weight-axis", "along axis 1; those of output channels lie along axis 0", None),
    (wrong_axis_of_gemm, "weight-axis", "weights of Gemm have scales along axis 1", None),
    (no_dequantize, "no-dequantize", "goes to Add as integers", "same input types"),
    (old_opset, "opset", "opset is 12", "Unsqueeze"),
    (uint8_moved, "uint8-input", "put a Cast to float before it", "type UInt8"),
    (foreign_domain, "domain", "of the domain com.microsoft", "Plugin not found"),
    (fused_convolution, "fused", "QLinearConv fuses arithmetic", "QLinearConv"),
    (zero_scale, "scale", "not positive everywhere", "must all be positive"),
]


@pytest.mark.parametrize(("change", "rule", "words", "refusal"), BAD, ids=[b[0].__name__ for b in BAD])
def test_a_file_that_breaks_a_rule(
    model: onnx.ModelProto, quantized: Release, change: Change, rule: str, words: str, refusal: str | None
) -> None:
    change(model)
    findings = {finding.rule: finding for finding in lint(model)}
    assert rule in findings
    assert words in findings[rule].sentence
    assert findings[rule].node or rule == "opset"

    product = load_product("tensorrt_rtx", ["sm86"])
    data = model.SerializeToString()
    if refusal is None:
        assert engine_from_onnx(data, product, ["sm86"], "0" * 64, release_profiles(quantized.spec)).data
    else:
        with pytest.raises(EngineError, match=refusal):
            engine_from_onnx(data, product, ["sm86"], "0" * 64, release_profiles(quantized.spec))


def test_a_computed_scale_is_found_before_the_builder_dies_of_it(
    model: onnx.ModelProto, quantized: Release, tmp_path: Path
) -> None:
    """TensorRT-RTX 1.7.1 parses it and ends in a segmentation fault: nothing a caller could catch."""
    computed_scale(model)
    assert {f.rule for f in lint(model)} == {"scale"}
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    code = (
        "import sys; from pathlib import Path; from hwr_export.engine.build import engine_from_onnx; "
        "from hwr_export.engine.products import load_product; from hwr_export.release import Release; "
        "from hwr_export.engine.options import release_profiles; "
        "profiles = release_profiles(Release.open(Path(sys.argv[2])).spec); "
        "product = load_product('tensorrt_rtx', ['sm86']); "
        "engine_from_onnx(Path(sys.argv[1]).read_bytes(), product, ['sm86'], '0' * 64, profiles)"
    )
    done = subprocess.run([sys.executable, "-c", code, path, quantized.path], check=False, cwd=ROOT)
    assert done.returncode != 0


def test_our_own_file_has_nothing_to_refuse(quantized: Release, hwr) -> None:
    result = hwr("lint", quantized.path / "model.int8.onnx")
    assert result.exit_code == 0, result.output
    assert "Nothing to refuse." in result.output


def test_the_file_for_onnxruntime_is_not_for_tensorrt(quantized: Release, hwr) -> None:
    result = hwr("lint", quantized.path / "model.int8-cpu.onnx", "--json")
    assert result.exit_code == 1
    document = one_json(result.output)
    assert not document["ok"]
    assert {"int32", "uint8", "zero-point"} == {finding["rule"] for finding in document["findings"]}
    assert "int32 (a quantised bias)" in hwr("lint", quantized.path / "model.int8-cpu.onnx").output


def test_a_float_file_has_nothing_to_refuse(release: Release) -> None:
    assert lint_file(release.path / "model.fp32.onnx") == []


def test_integers_may_be_moved_and_pooled(model: onnx.ModelProto) -> None:
    quantizer, dequantizer = pair(model)
    dequantizer.input[0] = "pooled"
    pool = helper.make_node("MaxPool", [quantizer.output[0]], ["pooled"], name="pool", kernel_shape=[1, 1])
    insert(model, dequantizer, pool)
    assert lint(model) == []


def test_a_quantizer_without_a_scale(model: onnx.ModelProto) -> None:
    del pair(model)[0].input[1:]
    assert any(f.sentence == "QuantizeLinear has no scale" for f in lint(model))


@pytest.mark.parametrize("content", [b"not onnx", b"", onnx.ModelProto(ir_version=8).SerializeToString()])
def test_what_is_no_onnx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(content)
    with pytest.raises(QuantizationError, match=r"m\.onnx (is not an ONNX file|holds no graph)"):
        lint_file(tmp_path / "m.onnx")


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        lint_file(tmp_path / "m.onnx")


def test_a_strangers_float_weights_before_a_quantizer(model: onnx.ModelProto) -> None:
    """The other way to write a quantised weight: floats, QuantizeLinear, DequantizeLinear."""
    dequantizer = weight_of(model, node_of(model, "Conv", 1))
    stored, scales = array_of(model, dequantizer.input[0]), array_of(model, dequantizer.input[1])
    floats = add(model, "floats", stored.astype(np.float32) * scales.reshape(-1, 1, 1, 1))
    zeros = add(model, "zeros", np.zeros(scales.size, np.int8))
    quantizer = helper.make_node(Q, [floats, dequantizer.input[1], zeros], ["again"], name="wq", axis=0)
    dequantizer.input[0] = "again"
    insert(model, dequantizer, quantizer)
    assert lint(model) == []
    assert model.graph.initializer[-1].data_type == TensorProto.INT8
