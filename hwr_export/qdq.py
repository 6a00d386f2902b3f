"""ONNX with QuantizeLinear/DequantizeLinear pairs -> its layers, the same file with some back in float or smaller.

A layer is a convolution or matrix product whose weight is a dequantised constant; its name is that of its node.
Anybody's file can be read. Torch-free.
"""

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from hwr_export.errors import QuantizationError

Q, DQ = "QuantizeLinear", "DequantizeLinear"
LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
MOVES = ("Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten")  # between a weight and its layer


class Graph:
    """A model with the look-ups that graphs lack: who makes a value, who reads it, which values are constants."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.model = model
        self.constants: dict[str, onnx.TensorProto] = {t.name: t for t in graph.initializer}
        self.maker: dict[str, onnx.NodeProto] = {}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for value in node.output:
                self.maker[value] = node
            for value in node.input:
                self.readers.setdefault(value, []).append(node)
            if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
                self.constants[node.output[0]] = node.attribute[0].t

    def array(self, value: str) -> npt.NDArray[Any] | None:
        """Return a constant's array, or None where the value is computed."""
        tensor = self.constants.get(value)
        return None if tensor is None else np.asarray(numpy_helper.to_array(tensor))

    def dequantizer(self, value: str) -> onnx.NodeProto | None:
        """Return the DequantizeLinear that a value comes from, through nodes that only move elements about."""
        node = self.maker.get(value)
        while node is not None and node.op_type in MOVES:
            node = self.maker.get(node.input[0])
        return node if node is not None and node.op_type == DQ else None

    def holds_weight(self, dequantizer: onnx.NodeProto) -> bool:
        """Return whether a DequantizeLinear gives a constant: integers, or floats before a QuantizeLinear."""
        source = dequantizer.input[0]
        quantizer = self.maker.get(source)
        return source in self.constants or (quantizer is not None and quantizer.input[0] in self.constants)


def node_name(node: onnx.NodeProto) -> str:
    """Return a node's name, or that of what it makes where it has none."""
    return str(node.name or (node.output[0] if node.output else node.op_type))


def name_layers(model: onnx.ModelProto, names: Sequence[str]) -> None:
    """Name the nodes of the layers, in the file's order, as the network names its modules.

    Raises:
        QuantizationError: the file has another number of layers with constant weights.
    """
    graph = Graph(model)
    layers = [node for node in model.graph.node if _is_layer(graph, node)]
    if len(layers) != len(names):
        raise QuantizationError(
            f"the file has {len(layers)} layers with constant weights and the network {len(names)}; export it again"
        )
    for node, name in zip(layers, names, strict=True):
        node.name = name


def quantized_layers(model: onnx.ModelProto) -> list[str]:
    """Return the names of the layers that compute in integers, in the file's order."""
    graph = Graph(model)
    return [node_name(node) for node in model.graph.node if weight_dequantizer(graph, node) is not None]


def with_float_layers(model: onnx.ModelProto, names: Collection[str]) -> onnx.ModelProto:
    """Return a copy in which these layers compute in float, on the float values of their int8 weights.

    What other layers read stays quantised: only the pairs on the inputs of the named ones go.

    Raises:
        QuantizationError: a name is no quantised layer of the model.
    """
    unknown = sorted(set(names) - set(quantized_layers(model)))
    if unknown:
        raise QuantizationError(
            f"no quantised layer {', '.join(unknown)}; the file has: {', '.join(quantized_layers(model)) or 'none'}"
        )
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    graph = Graph(changed)
    for node in changed.graph.node:
        if node.op_type in LAYERS and node_name(node) in names:
            for i, value in enumerate(node.input):
                node.input[i] = _in_float(graph, value)
    drop_unused(changed)
    return changed


def compact(model: onnx.ModelProto) -> None:
    """Make a file smaller in place: one copy of equal constants, no zero points of zero, no shapes, short names.

    Names of inputs, outputs and of nodes that compute stay. On a network of 70,000 parameters this is 6 % of the file.
    """
    graph = model.graph
    del graph.value_info[:]
    zeros = {t.name for t in graph.initializer if not numpy_helper.to_array(t).any()}
    for node in graph.node:
        # A QuantizeLinear without one makes uint8, so there it stays.
        if node.op_type == DQ and len(node.input) > 2 and node.input[2] in zeros:
            del node.input[2]
    drop_unused(model)
    first: dict[bytes, str] = {}
    renamed: dict[str, str] = {}
    for tensor in graph.initializer:
        content = _copied(tensor)
        content.name = ""
        renamed[tensor.name] = first.setdefault(content.SerializeToString(), tensor.name)
    kept = {value.name for value in (*graph.input, *graph.output)}
    if any(a.HasField("g") or a.graphs for node in graph.node for a in node.attribute):
        return  # subgraphs see the names of the graph around them
    short: dict[str, str] = {}
    for node in graph.node:
        for names in (node.input, node.output):
            for i, value in enumerate(names):
                one = renamed.get(value, value)
                if one and one not in kept:
                    names[i] = short.setdefault(one, f"v{len(short)}")
        if node.op_type in (Q, DQ):
            node.name = ""
    constants = [_copied(t) for t in graph.initializer if renamed[t.name] == t.name]
    for tensor in constants:
        tensor.name = short.get(tensor.name, tensor.name)
    graph.ClearField("initializer")
    graph.initializer.extend(constants)


def drop_unused(model: onnx.ModelProto) -> None:
    """Remove nodes, constants and shapes that no output depends on."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    kept = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            needed |= set(node.input)
            kept.append(node)
    nodes = [_copied(node) for node in reversed(kept)]
    constants = [_copied(t) for t in graph.initializer if t.name in needed]
    shapes = [_copied(v) for v in graph.value_info if v.name in needed]
    for field, values in (("node", nodes), ("initializer", constants), ("value_info", shapes)):
        graph.ClearField(field)
        getattr(graph, field).extend(values)


def _is_layer(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type not in LAYERS or len(node.input) < 2:
        return False
    source: str = node.input[1]
    while source in graph.maker and graph.maker[source].op_type in (*MOVES, Q, DQ):
        source = str(graph.maker[source].input[0])
    return bool(source in graph.constants)


def weight_dequantizer(graph: Graph, node: onnx.NodeProto) -> onnx.NodeProto | None:
    """Return the DequantizeLinear of a layer's weight; None where the node is no layer or its weight is float."""
    if node.op_type not in LAYERS or len(node.input) < 2:
        return None
    found = graph.dequantizer(node.input[1])
    return found if found is not None and graph.holds_weight(found) else None


def _in_float(graph: Graph, value: str) -> str:
    """Return the float value behind a Q/DQ pair or a stored integer weight; the value itself where there is none."""
    node = graph.maker.get(value)
    if node is not None and node.op_type in MOVES and graph.dequantizer(value) is not None:
        node.input[0] = _in_float(graph, node.input[0])
        return value
    if node is None or node.op_type != DQ:
        return value
    stored = graph.array(node.input[0])
    if stored is None:
        quantizer = graph.maker.get(node.input[0])
        return value if quantizer is None or quantizer.op_type != Q else str(quantizer.input[0])
    name = f"{node.input[0]}_float"
    if name not in graph.constants:
        tensor = numpy_helper.from_array(_dequantized(graph, node, stored), name)
        graph.model.graph.initializer.append(tensor)
        graph.constants[name] = tensor
    return name


def _dequantized(graph: Graph, node: onnx.NodeProto, stored: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    scale, zero = graph.array(node.input[1]), zero_point(graph, node)
    if scale is None:
        raise QuantizationError(f"the scale of {node_name(node)} is computed; only constant scales can be removed")
    shape = [1] * stored.ndim
    if scale.size > 1:
        shape[attribute(node, "axis", 1)] = -1
    shifted = stored.astype(np.float32) - (0 if zero is None else zero.astype(np.float32).reshape(shape))
    return np.asarray(shifted * scale.reshape(shape), dtype=np.float32)


def zero_point(graph: Graph, node: onnx.NodeProto) -> npt.NDArray[Any] | None:
    """Return the zero point of a Q or DQ node; None where it has none or it is computed."""
    return graph.array(node.input[2]) if len(node.input) > 2 and node.input[2] else None


def attribute(node: onnx.NodeProto, name: str, default: int) -> int:
    """Return an integer attribute of a node."""
    return next((int(a.i) for a in node.attribute if a.name == name), default)


def _copied(message: Any) -> Any:
    copy = type(message)()
    copy.CopyFrom(message)
    return copy
