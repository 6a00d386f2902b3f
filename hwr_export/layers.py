"""ONNX bytes -> what each node computes and moves for one image, and which layers waste a vector unit. Needs onnx.

Counts are exact from the shapes: a multiply-accumulate is two FLOP, bytes are inputs read, weights read and outputs
written once, at the types that the graph states (a quantised layer's inputs and weights count one byte a value).
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import onnx
from onnx import AttributeProto, ModelProto, NodeProto, TensorProto, helper

from hwr_export.errors import RunnerError

LANES = 16  # values that a vector unit of 512 bits adds up at once: channels that are no multiple leave lanes empty
QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")
MOVES = ("Transpose", "Cast", "Reshape", "Unsqueeze", "Squeeze", "Expand", "Concat", "Slice")
POOLS = ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "ReduceMean")


@dataclass(frozen=True)
class Layer:
    """One node for one image. `waste` says in words why the hardware is not used well, empty where it may be."""

    name: str
    operator: str
    output_shape: tuple[int, ...]
    flop: int
    bytes: int
    waste: str = ""

    @property
    def intensity(self) -> float:
        """Return FLOP for each byte moved."""
        return self.flop / max(1, self.bytes)


def layers(model: bytes) -> list[Layer]:
    """Return the nodes that compute or move something, in the graph's order.

    Raises:
        RunnerError: not an ONNX file, or shapes that cannot be inferred.
    """
    graph = _with_shapes(model)
    shapes = _shapes(graph)
    quantized = {o for n in graph.graph.node if n.op_type in QUANTIZERS for o in n.output}
    weights = {i.name for i in graph.graph.initializer} | {
        n.output[0] for n in graph.graph.node if n.op_type == "DequantizeLinear" and _is_constant(graph, n.input[0])
    }
    found = []
    for node in graph.graph.node:
        if node.op_type in (*QUANTIZERS, "Constant") or not node.output or node.output[0] not in shapes:
            continue
        output, size = shapes[node.output[0]]
        moved = (
            sum(prod(shapes[i][0]) * (1 if i in quantized else shapes[i][1]) for i in node.input if i in shapes)
            + prod(output) * size
        )
        flop = _flop(node, shapes)
        found.append(
            Layer(node.name or node.output[0], node.op_type, output, flop, moved, _waste(node, shapes, weights))
        )
    return found


def _with_shapes(model: bytes) -> ModelProto:
    try:
        graph = onnx.load_model_from_string(model)
        for value in graph.graph.input:
            value.type.tensor_type.shape.dim[0].dim_value = 1
        del graph.graph.value_info[:]
        for value in graph.graph.output:
            value.type.tensor_type.ClearField("shape")
        return onnx.shape_inference.infer_shapes(graph, strict_mode=True, data_prop=True)
    except Exception as err:  # protobuf's DecodeError and onnx's errors have no common base
        first = (str(err).splitlines() or [type(err).__name__])[0]
        raise RunnerError(f"the shapes of the ONNX file cannot be inferred: {first}") from err


def _shapes(model: ModelProto) -> dict[str, tuple[tuple[int, ...], int]]:
    """Return name -> (shape, bytes a value) of everything whose shape is known."""
    graph = model.graph
    found = {
        v.name: (tuple(d.dim_value for d in v.type.tensor_type.shape.dim), _width(v.type.tensor_type.elem_type))
        for v in (*graph.input, *graph.value_info, *graph.output)
    }
    return found | {t.name: (tuple(t.dims), _width(t.data_type)) for t in graph.initializer}


def _width(elem_type: int) -> int:
    return 1 if elem_type == TensorProto.UNDEFINED else helper.tensor_dtype_to_np_dtype(elem_type).itemsize


def _is_constant(model: ModelProto, name: str) -> bool:
    return any(t.name == name for t in model.graph.initializer)


def _flop(node: NodeProto, shapes: dict[str, tuple[tuple[int, ...], int]]) -> int:
    output = prod(shapes[node.output[0]][0])
    if node.op_type in ("Conv", "ConvTranspose") and node.input[1] in shapes:
        return 2 * output * prod(shapes[node.input[1]][0][1:])
    if node.op_type in ("MatMul", "Gemm") and node.input[0] in shapes:
        transposed = _attribute(node, "transA", 0)
        return 2 * output * shapes[node.input[0]][0][-2 if transposed else -1]
    if node.op_type in MOVES:
        return 0
    if node.op_type in POOLS and node.input[0] in shapes:
        return prod(shapes[node.input[0]][0])
    return output


def _waste(node: NodeProto, shapes: dict[str, tuple[tuple[int, ...], int]], weights: set[str]) -> str:
    """Return why a vector unit is not used well by this node."""
    if node.op_type in MOVES:
        constant = any(i in weights for i in node.input[:1])
        return "" if constant else "moves or converts values and computes nothing"
    if node.op_type == "MaxPool":
        return "reads a whole map to keep a part of it: a stride in the convolution before does both"
    if node.op_type != "Conv" or node.input[1] not in shapes:
        return ""
    outputs, inputs = shapes[node.input[1]][0][:2]
    height, width = shapes[node.output[0]][0][2:]
    said = []
    if inputs * _attribute(node, "group", 1) < LANES // 4:
        said.append(f"{inputs} input channel(s) at {height} x {width}: all but {inputs} of {LANES} lanes idle")
    said += [
        f"{n} {side} channels are no multiple of {LANES}"
        for n, side in ((inputs, "input"), (outputs, "output"))
        if n % LANES and n >= LANES // 4
    ]
    return "; ".join(said)


def _attribute(node: NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name and a.type == AttributeProto.INT), default)


def total(found: list[Layer]) -> dict[str, Any]:
    """Return the sums over all layers, for one image."""
    return {"flop": sum(one.flop for one in found), "bytes": sum(one.bytes for one in found)}
