import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwr_export.errors import RunnerError
from hwr_export.layers import layers, total
from hwr_export.release import Release


def model(*nodes: onnx.NodeProto, weights: dict[str, tuple[int, ...]], takes: tuple[int, ...]) -> bytes:
    constants = [numpy_helper.from_array(np.zeros(shape, np.float32), name) for name, shape in weights.items()]
    graph = helper.make_graph(
        list(nodes),
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", *takes])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10).SerializeToString()


def test_a_convolution_by_hand() -> None:
    """3 x 3, 16 to 32 channels, 28 x 28, padded: 2 * 9 * 16 * 32 * 784 FLOP."""
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    (found,) = layers(model(node, weights={"w": (32, 16, 3, 3)}, takes=(16, 28, 28)))
    assert found.flop == 2 * 9 * 16 * 32 * 784
    assert found.bytes == 4 * (16 * 784 + 32 * 16 * 9 + 32 * 784)
    assert found.output_shape == (1, 32, 28, 28)
    assert found.waste == ""


def test_a_matrix_product_by_hand() -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", transB=1)
    (found,) = layers(model(node, weights={"w": (10, 48), "b": (10,)}, takes=(48,)))
    assert found.flop == 2 * 48 * 10
    assert found.bytes == 4 * (48 + 480 + 10 + 10)


@pytest.mark.parametrize(
    ("weight", "takes", "waste"),
    [
        ((16, 1, 3, 3), (1, 28, 28), "1 input channel(s) at 26 x 26: all but 1 of 16 lanes idle"),
        ((24, 16, 3, 3), (16, 14, 14), "24 output channels are no multiple of 16"),
        ((32, 40, 3, 3), (40, 14, 14), "40 input channels are no multiple of 16"),
        ((32, 16, 3, 3), (16, 14, 14), ""),
    ],
)
def test_waste_is_named(weight: tuple[int, ...], takes: tuple[int, ...], waste: str) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], "conv", kernel_shape=list(weight[2:]))
    (found,) = layers(model(node, weights={"w": weight}, takes=takes))
    assert found.waste == waste


def test_pooling_and_moves_are_named() -> None:
    nodes = (
        helper.make_node("MaxPool", ["x"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Transpose", ["p"], ["y"], "turn", perm=[0, 2, 3, 1]),
    )
    pool, turn = layers(model(*nodes, weights={}, takes=(16, 14, 14)))
    assert "a stride in the convolution before" in pool.waste
    assert "moves or converts" in turn.waste
    assert turn.flop == 0


def test_quantised_values_count_one_byte(quantized: Release) -> None:
    whole = {p: layers(quantized.read(quantized.onnx(p))) for p in ("fp32", "int8")}
    assert total(whole["fp32"])["flop"] == total(whole["int8"])["flop"] > 1e5
    assert total(whole["int8"])["bytes"] < 0.8 * total(whole["fp32"])["bytes"]


def test_what_is_no_onnx_file_is_refused() -> None:
    with pytest.raises(RunnerError, match="the shapes of the ONNX file cannot be inferred"):
        layers(b"no protobuf at all")
