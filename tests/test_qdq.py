"""A quantised file can be taken apart layer by layer and made smaller without changing what it computes."""

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from hwr_export.datasets import Dataset
from hwr_export.errors import QuantizationError
from hwr_export.qdq import DQ, Q, compact, name_layers, quantized_layers, with_float_layers
from hwr_export.release import Release
from hwr_export.runners import onnx_runner
from hwr_export.spec import LOGITS

NAMES = ["stem.0", *(f"blocks.{i}.{n}" for i in range(3) for n in ("conv1", "conv2", "shortcut.0")), "classifier"]


def load(release: Release, precision: str) -> onnx.ModelProto:
    return onnx.load_model_from_string(release.read(release.onnx(precision)))


def logits(release: Release, model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    with onnx_runner("onnxruntime", model.SerializeToString(), release.spec) as runner:
        return runner.infer_all(images)[LOGITS]


def count(model: onnx.ModelProto, op: str) -> int:
    return sum(node.op_type == op for node in model.graph.node)


@pytest.mark.parametrize("precision", ["int8", "int8-cpu"])
def test_every_convolution_and_linear_layer_is_quantised_and_named(quantized: Release, precision: str) -> None:
    assert sorted(quantized_layers(load(quantized, precision))) == sorted(NAMES)


def test_a_float_file_has_no_quantised_layer(release: Release) -> None:
    assert quantized_layers(load(release, "fp32")) == []


@pytest.mark.parametrize("precision", ["int8", "int8-cpu"])
def test_a_layer_goes_back_to_float_and_the_others_stay(
    quantized: Release, mnist_test: Dataset, precision: str
) -> None:
    model = load(quantized, precision)
    before = model.SerializeToString()
    changed = with_float_layers(model, ["blocks.1.conv1"])
    assert model.SerializeToString() == before
    assert sorted(quantized_layers(changed)) == sorted(set(NAMES) - {"blocks.1.conv1"})
    onnx.checker.check_model(changed, full_check=True)
    images = mnist_test.images[:64]
    difference = np.abs(logits(quantized, changed, images) - logits(quantized, model, images))
    assert 0 < difference.max() < 1


def test_with_all_layers_in_float_the_rounded_weights_are_left(quantized: Release, mnist_test: Dataset) -> None:
    model = load(quantized, "int8")
    changed = with_float_layers(model, NAMES)
    assert quantized_layers(changed) == []
    stored = {t.name: t for t in model.graph.initializer}
    integers = [numpy_helper.to_array(t) for t in stored.values() if t.data_type == TensorProto.INT8 and t.dims]
    floats = [numpy_helper.to_array(t) for t in changed.graph.initializer if t.name.endswith("_float")]
    assert [a.shape for a in floats] == [a.shape for a in integers]
    for whole, real in zip(integers, floats, strict=True):
        scale = np.abs(real.reshape(len(real), -1)).max(1) / np.abs(whole.reshape(len(whole), -1).astype(int)).max(1)
        expected = whole * scale.reshape(-1, *[1] * (whole.ndim - 1))
        np.testing.assert_allclose(real, expected, rtol=1e-5, atol=1e-7)
    images = mnist_test.images[:64]
    near = logits(quantized, changed, images)
    assert (near.argmax(1) == logits(quantized, load(quantized, "fp32"), images).argmax(1)).mean() > 0.95


def test_a_layer_that_is_not_there(quantized: Release) -> None:
    with pytest.raises(QuantizationError, match=r"no quantised layer stem\.9; the file has: stem\.0, blocks\.0\.conv1"):
        with_float_layers(load(quantized, "int8"), ["stem.9"])


def test_names_must_be_as_many_as_layers(release: Release) -> None:
    with pytest.raises(QuantizationError, match="the file has 11 layers with constant weights and the network 1"):
        name_layers(load(release, "fp32"), ["only"])


@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
@settings(max_examples=15, deadline=None)
def test_compact_changes_no_answer(seed: int, channels: int) -> None:
    """Constants that are equal, zero points that are zero, names that are long: none of it is arithmetic."""
    model = small_model(seed, channels)
    image = np.random.default_rng(seed).normal(size=(3, channels, 5, 5)).astype(np.float32)
    before = run(model, image)
    size = len(model.SerializeToString())
    compact(model)
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_array_equal(run(model, image), before)
    assert len(model.SerializeToString()) < size
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["image", "logits"]
    again = model.SerializeToString()
    compact(model)
    assert model.SerializeToString() == again


def test_compact_shares_what_is_equal_and_keeps_what_uint8_would_change(quantized: Release) -> None:
    model = load(quantized, "int8")
    assert all(len(node.input) == 2 for node in model.graph.node if node.op_type == DQ)
    zeros = {node.input[2] for node in model.graph.node if node.op_type == Q}
    assert len(zeros) == 1
    assert not model.graph.value_info


def small_model(seed: int, channels: int) -> onnx.ModelProto:
    rng = np.random.default_rng(seed)
    constants = {
        "a_long_name_for_a_scale": np.float32(0.1),
        "another_name_for_the_same": np.float32(0.1),
        "zero": np.int8(0),
        "weight": rng.integers(-127, 128, (2, channels, 3, 3)).astype(np.int8),
        "scales": rng.uniform(0.01, 0.1, 2).astype(np.float32),
        "zeros": np.zeros(2, np.int8),
        "unused": np.ones(7, np.float32),
    }
    nodes = [
        helper.make_node(Q, ["image", "a_long_name_for_a_scale", "zero"], ["integers"], name="q"),
        helper.make_node(DQ, ["integers", "another_name_for_the_same", "zero"], ["floats"], name="dq"),
        helper.make_node(DQ, ["weight", "scales", "zeros"], ["weight_floats"], name="wdq", axis=0),
        helper.make_node("Conv", ["floats", "weight_floats"], ["logits"], name="conv"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", channels, 5, 5])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 2, 3, 3])],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(model: onnx.ModelProto, image: np.ndarray) -> np.ndarray:
    from hwr_export.runners.onnxruntime import CPU, open_session

    return open_session(model.SerializeToString(), CPU, 1).run(["logits"], {"image": image})[0]
