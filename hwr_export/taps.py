"""ONNX bytes -> the same graph with inner values as outputs, and what those values are. The one reader of graphs.

Needs the package onnx, which a device may not have; whoever calls says so. Never changes what a graph computes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, NodeProto, TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from hwr_export.errors import RunnerError
from hwr_export.runners import Arrays
from hwr_export.spec import INPUT, OUTPUTS

# What preprocessing consists of: the walk from the input ends at the first node that is none of these.
PREPROCESSING = {
    "Cast",
    "Mul",
    "Add",
    "Sub",
    "Div",
    "Unsqueeze",
    "Squeeze",
    "Reshape",
    "Transpose",
    "Expand",
    "Concat",
    "Slice",
}
# What a quantiser keeps, one for one and in order, whatever it does in between.
LAYERS = {"Conv": "Conv", "ConvTranspose": "ConvTranspose", "Gemm": "MatMul", "MatMul": "MatMul"}
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Value:
    """An inner value of a graph: its name, the operator that makes it, and the layer it belongs to in words; the shape
    of that layer's weight, its numbers ascending, empty where it has none."""

    name: str
    operator: str
    layer: str
    weight_shape: tuple[int, ...] = ()


def load_graph(model: bytes, source: str) -> ModelProto:
    """Decode ONNX bytes, with the types of all inner values.

    Raises:
        RunnerError: not an ONNX file.
    """
    try:
        return onnx.shape_inference.infer_shapes(onnx.load_from_string(model))
    except Exception as err:  # protobuf's DecodeError and onnx's errors have no common base
        first = (str(err).splitlines() or [type(err).__name__])[0]
        raise RunnerError(f"{source} is no valid ONNX file: {first}") from err


def float_values(model: ModelProto) -> list[Value]:
    """Return every floating-point value that a node makes, in the order of the graph."""
    kinds = {v.name: v.type.tensor_type.elem_type for v in [*model.graph.value_info, *model.graph.output]}
    weights = _weights(model)
    shapes = {t.name: tuple(sorted(t.dims)) for t in model.graph.initializer}
    return [
        Value(name, node.op_type, *_layer(node, weights, shapes))
        for node in model.graph.node
        for name in node.output
        if kinds.get(name) in FLOATS and not set(node.input) <= weights.keys()
    ]


def weights_without_value(model: ModelProto) -> list[str]:
    """Return the names of float weights that hold NaN or infinity."""
    floats = [t for t in model.graph.initializer if t.data_type in FLOATS]
    return [t.name for t in floats if not np.isfinite(numpy_helper.to_array(t)).all()]


def preprocessing_values(model: ModelProto) -> list[str]:
    """Return the floating-point values on the way from the input to the first node that is not preprocessing."""
    kinds = {v.name: v.type.tensor_type.elem_type for v in model.graph.value_info}
    current, found = INPUT, list[str]()
    while True:
        takers = [n for n in model.graph.node if current in n.input]
        if len(takers) != 1 or takers[0].op_type not in PREPROCESSING:
            return found
        current = takers[0].output[0]
        if kinds.get(current) in FLOATS:
            found.append(current)


def with_outputs(model: ModelProto, names: Sequence[str]) -> bytes:
    """Return the model with these values as outputs after its own."""
    tapped = ModelProto()
    tapped.CopyFrom(model)
    known = {v.name: v for v in model.graph.value_info}
    own = {v.name for v in model.graph.output}
    tapped.graph.output.extend(known[name] for name in names if name not in own)
    return bytes(tapped.SerializeToString())


def pair_values(reference: ModelProto, other: ModelProto) -> list[tuple[Value, Value]]:
    """Return the values of two graphs that stand for the same thing, in the order of the first.

    Values of the same name, where every layer of the first has its namesake of the same operator in the other; else
    layers of the same kind and weight shape, the first with the first, if both graphs have as many; else nothing.
    """
    ours, theirs = float_values(reference), float_values(other)
    by_name = {v.name: v for v in theirs}
    layers = [v for v in ours if v.operator in LAYERS]
    if layers and all(v.name in by_name and by_name[v.name].operator == v.operator for v in layers):
        return [(v, by_name[v.name]) for v in ours if v.name in by_name]
    kinds, other_kinds = _by_kind(layers), _by_kind([v for v in theirs if v.operator in LAYERS])
    if {k: len(v) for k, v in kinds.items()} != {k: len(v) for k, v in other_kinds.items()}:
        return []
    partner = {a.name: b for kind, same in kinds.items() for a, b in zip(same, other_kinds[kind], strict=True)}
    return [(v, partner[v.name]) for v in layers]


def reference_outputs(model: bytes, images: npt.NDArray[np.uint8], names: Sequence[str] = OUTPUTS) -> Arrays:
    """Run a model as the ONNX standard defines it, slowly, on images uint8 (N, H, W).

    Raises:
        RunnerError: the standard's own evaluator cannot run it.
    """
    try:
        values = ReferenceEvaluator(onnx.load_from_string(model)).run(list(names), {INPUT: images})
    except Exception as err:  # the evaluator raises whatever NumPy does
        raise RunnerError(f"onnx.reference cannot run the model: {(str(err).splitlines() or [''])[0]}") from err
    return dict(zip(names, map(np.asarray, values), strict=True))


def _weights(model: ModelProto) -> dict[str, str]:
    """Return each value that no input reaches -> the initialiser that it is made of."""
    found = {tensor.name: tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        if set(node.input) <= found.keys():
            found |= {name: found[node.input[0]] if node.input else name for name in node.output}
    return found


def _by_kind(layers: Sequence[Value]) -> dict[tuple[str, tuple[int, ...]], list[Value]]:
    """Group layers by what they are; a graph may be written in another order, its like layers are not."""
    found: dict[tuple[str, tuple[int, ...]], list[Value]] = {}
    for value in layers:
        found.setdefault((LAYERS[value.operator], value.weight_shape), []).append(value)
    return found


def _layer(node: NodeProto, weights: dict[str, str], shapes: dict[str, tuple[int, ...]]) -> tuple[str, tuple[int, ...]]:
    """Return the module that a node's weight belongs to, as its exporter named it, else the node; and that shape."""
    if node.op_type in LAYERS:
        for name in node.input:
            if name in weights:
                root = weights[name]
                return root.rsplit(".", 1)[0] if "." in root else node.name or node.op_type, shapes.get(root, ())
    return node.name or node.op_type, ()
