"""The file for ONNX Runtime: what is quantised in it, and that the observers are three and not one."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from hwr_export.datasets import Dataset
from hwr_export.errors import QuantizationError
from hwr_export.qdq import DQ, Graph, Q, quantized_layers
from hwr_export.release import Release
from hwr_export.u8s8 import outside_layers, u8s8_from_onnx


@pytest.fixture
def source(release: Release) -> onnx.ModelProto:
    return onnx.load_model_from_string(release.read(release.onnx("fp32")))


def test_activations_are_uint8_and_weights_int8_per_channel(source: onnx.ModelProto, mnist_test: Dataset) -> None:
    before = source.SerializeToString()
    model = u8s8_from_onnx(source, mnist_test.images[:32], "min-max")
    assert source.SerializeToString() == before
    graph = Graph(model)
    layers = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm")]
    assert len(layers) == len(quantized_layers(model)) == 11
    for layer in layers:
        weight = graph.dequantizer(layer.input[1])
        stored, scales = graph.constants[weight.input[0]], graph.array(weight.input[1])
        assert stored.data_type == TensorProto.INT8
        assert scales.shape == (stored.dims[0],)
        quantizer = graph.maker[graph.dequantizer(layer.input[0]).input[0]]
        assert graph.constants[quantizer.input[2]].data_type == TensorProto.UINT8


def test_pixels_logits_and_softmax_stay_in_float(source: onnx.ModelProto, mnist_test: Dataset) -> None:
    outside = {node.op_type for node in source.graph.node if node.name in outside_layers(source)}
    assert outside == {"Cast", "Mul", "Add", "Unsqueeze", "Div", "Softmax"}
    model = u8s8_from_onnx(source, mnist_test.images[:32], "min-max")
    graph = Graph(model)
    for node in model.graph.node:
        if node.op_type in ("Cast", "Mul", "Div", "Softmax"):
            assert graph.dequantizer(node.input[0]) is None
    assert graph.maker["logits"].op_type == "Gemm"


def test_the_observers_find_other_ranges(source: onnx.ModelProto, mnist_test: Dataset) -> None:
    scales = {}
    for observer in ("min-max", "histogram", "percentile"):
        model = u8s8_from_onnx(source, mnist_test.images[:32], observer)
        graph = Graph(model)
        scales[observer] = np.array([graph.array(n.input[1]) for n in model.graph.node if n.op_type == Q])
    assert len(scales["min-max"]) == sum(n.op_type == Q for n in model.graph.node)
    for observer in ("histogram", "percentile"):
        assert not np.array_equal(scales[observer], scales["min-max"])
    assert any(n.op_type == DQ for n in model.graph.node)


def test_what_the_tool_cannot_do_is_said_in_one_sentence(source: onnx.ModelProto, mnist_test: Dataset) -> None:
    source.graph.node[3].op_type = "Nonsense"
    with pytest.raises(QuantizationError, match="onnxruntime cannot quantise the model: "):
        u8s8_from_onnx(source, mnist_test.images[:4], "min-max")
