"""A Q/DQ ONNX file, anybody's -> what TensorRT will refuse in it, each with its node and in a sentence. Torch-free.

Enterprise TensorRT's documentation is the measure. The builder of TensorRT-RTX takes some of it all the same, and then
computes in float what was meant to be int8; `docs/quantisation.md` says which.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto

from hwr_export.errors import QuantizationError, UsageError
from hwr_export.qdq import (
    DQ,
    MOVES,
    Graph,
    Q,
    attribute,
    node_name,
    weight_dequantizer,
    zero_point,
)

PER_CHANNEL_OPSET = 13
# Standard operators that fuse quantisation with arithmetic: TensorRT reads Q/DQ pairs and none of these.
FUSED = ("QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear")
PASSES_UINT8: Final = ("Cast", DQ)
PASSES_INT8: Final = (DQ, "MaxPool", *MOVES)  # what may read integers; TensorRT pools and moves int8 as it is


@dataclass(frozen=True)
class Finding:
    """One thing that TensorRT will refuse: the rule's name, the node (empty: the whole file), and a sentence."""

    rule: str
    node: str
    sentence: str


def lint_file(path: Path) -> list[Finding]:
    """Lint a file, with the weights that it may keep in others beside it.

    Raises:
        UsageError: it cannot be read.
        QuantizationError: it is no ONNX file.
    """
    try:
        model = onnx.load(path)
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}; give an ONNX file") from err
    except Exception as err:  # protobuf has several implementations with classes of their own
        raise QuantizationError(f"{path} is not an ONNX file ({type(err).__name__}); give one") from err
    if not model.graph.node:
        raise QuantizationError(f"{path} holds no graph; give an ONNX file with one")
    return lint(model)


def lint(model: onnx.ModelProto) -> list[Finding]:
    """Return everything in a Q/DQ model that TensorRT will refuse, in the file's order."""
    graph = Graph(model)
    opset = next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), 0)
    findings = [
        Finding(rule, node_name(node), text) for node in model.graph.node for rule, text in _of_node(graph, node)
    ]
    if opset < PER_CHANNEL_OPSET and any(_is_per_channel(graph, node) for node in model.graph.node):
        sentence = f"the file's opset is {opset}; per-channel scales exist from opset {PER_CHANNEL_OPSET} on"
        findings.insert(0, Finding("opset", "", sentence))
    return findings


def _of_node(graph: Graph, node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    """Yield (rule, sentence) for everything that is wrong with one node."""
    if node.domain not in ("", "ai.onnx"):
        yield "domain", f"{node.op_type} is of the domain {node.domain}, which is not ONNX; quantise in the Q/DQ format"
    elif node.op_type in FUSED:
        yield "fused", f"{node.op_type} fuses arithmetic with quantisation; TensorRT takes pairs of {Q} and {DQ} only"
    if node.op_type in (Q, DQ) and len(node.input) < 2:
        yield "scale", f"{node.op_type} has no scale"
        return
    if node.op_type in (Q, DQ):
        yield from _of_pair(graph, node)
    if node.op_type == Q:
        yield from _of_quantizer(graph, node)
    weight = weight_dequantizer(graph, node)
    if weight is not None:
        yield from _of_weight(graph, node, weight)
    pixels = [value for value in node.input if _is_uint8_input(graph, value)]
    if pixels and node.op_type not in PASSES_UINT8:
        yield "uint8-input", f"{node.op_type} reads the uint8 input {pixels[0]} as it is; put a Cast to float before it"


def _of_pair(graph: Graph, node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    scale, zero = graph.array(node.input[1]), zero_point(graph, node)
    if scale is None:
        yield "scale", f"the scale {node.input[1]} is computed; it must be a constant of the file"
    elif not (np.isfinite(scale).all() and (scale > 0).all()):
        yield "scale", f"the scale {node.input[1]} is not positive everywhere (its least is {scale.min():.3g})"
    what = "weights" if node.op_type == DQ and graph.holds_weight(node) else "activations"
    if zero is not None and zero.any():
        rule = "asymmetric-weights" if what == "weights" else "zero-point"
        values = sorted({int(z) for z in zero.reshape(-1) if z})
        yield rule, f"{what} have the zero point {values[0]}; quantise symmetrically, every zero point must be 0"
    if node.op_type == DQ and _integer_type(graph, node) == TensorProto.INT32:
        yield "int32", f"{DQ} of int32 (a quantised bias); leave biases in float: QuantizeBias=False in ONNX Runtime"
    if node.op_type == DQ and _integer_type(graph, node) == TensorProto.UINT8:
        yield "uint8", f"{what} are uint8; quantise them as int8"


def _of_quantizer(graph: Graph, node: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    constant = node.input[0] in graph.constants
    if _is_per_channel(graph, node) and not constant:
        n = graph.array(node.input[1])
        yield "per-channel-activations", f"activations have {0 if n is None else n.size} scales; they may have one only"
    others = sorted({r.op_type for r in graph.readers.get(node.output[0], []) if r.op_type not in PASSES_INT8})
    if others:
        yield "no-dequantize", f"what {Q} makes goes to {', '.join(others)} as integers; put a {DQ} before it"


def _of_weight(graph: Graph, node: onnx.NodeProto, dequantizer: onnx.NodeProto) -> Iterator[tuple[str, str]]:
    if not _is_per_channel(graph, dequantizer) or graph.maker.get(node.input[1]) is not dequantizer:
        return
    axis, expected = attribute(dequantizer, "axis", 1), _output_axis(node, graph, dequantizer)
    if axis != expected:
        expectation = f"those of output channels lie along axis {expected}"
        yield "weight-axis", f"the weights of {node.op_type} have scales along axis {axis}; {expectation}"


def _output_axis(node: onnx.NodeProto, graph: Graph, dequantizer: onnx.NodeProto) -> int:
    if node.op_type == "Gemm":
        return 0 if attribute(node, "transB", 0) else 1
    if node.op_type == "MatMul":
        array = graph.array(dequantizer.input[0])
        return 1 if array is None else array.ndim - 1
    return 1 if node.op_type == "ConvTranspose" else 0


def _integer_type(graph: Graph, dequantizer: onnx.NodeProto) -> int:
    """Return the element type that a DequantizeLinear reads."""
    source = dequantizer.input[0]
    if source in graph.constants:
        return int(graph.constants[source].data_type)
    for node in (graph.maker.get(source), dequantizer):
        if node is not None and node.op_type in (Q, DQ) and len(node.input) > 2 and node.input[2] in graph.constants:
            return int(graph.constants[node.input[2]].data_type)
    quantizer = graph.maker.get(source)
    if quantizer is not None and quantizer.op_type == Q:
        return attribute(quantizer, "output_dtype", 0) or TensorProto.UINT8  # the standard's default
    return _input_type(graph, source)


def _is_per_channel(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type not in (Q, DQ):
        return False
    scale = graph.array(node.input[1])
    return scale is not None and scale.size > 1


def _is_uint8_input(graph: Graph, value: str) -> bool:
    return _input_type(graph, value) == int(TensorProto.UINT8)


def _input_type(graph: Graph, value: str) -> int:
    found = (int(v.type.tensor_type.elem_type) for v in graph.model.graph.input if v.name == value)
    return next(found, TensorProto.UNDEFINED)
