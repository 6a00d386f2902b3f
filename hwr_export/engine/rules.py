"""ONNX bytes + product -> what stands against a plan in any graph, whoever made it, each with its node and the fix.

A rule states what a builder refused, or its documentation refuses, or where the builder cannot say that nothing good
will come of it (a plan full of NaN). What a release says of its graph is not known here. Torch-free; needs onnx.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hwr_export.engine.targets import RTX, ProductName, Target
from hwr_export.qdq import Graph, attribute, node_name
from hwr_export.qdq_lint import Finding, lint
from hwr_export.release import INT8_CPU

# What a product reads from a version on, the newest first. TensorRT 11: its ONNX opset guide; 10.15 and 10.0:
# operators.md of its parser, which was not found for the versions between and is taken to hold until the next known.
# The parser of TensorRT-RTX 1.7.1 took every opset that onnx knows, tried from 6 on.
OPSETS: dict[ProductName, dict[tuple[int, int], range]] = {
    "tensorrt": {(11, 0): range(9, 26), (10, 15): range(9, 25), (10, 0): range(9, 21)},
    "tensorrt_rtx": {(1, 0): range(6, onnx.defs.onnx_opset_version() + 1)},
}
STANDARD = ("", "ai.onnx")
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
PRODUCTS_OF_MATRICES = ("Gemm", "MatMul")
U8S8_RULES = ("uint8", "zero-point", "int32")  # what all files for ONNX Runtime on a CPU break, at every layer
# Operators of early ONNX that its standard has dropped and TensorRT-RTX 1.7.1 builds all the same.
DROPPED = ("ImageScaler", "ParametricSoftplus", "ScaledTanh")
# Before opset 7 these have an attribute `broadcast`, and the parser takes none of them, whatever its value.
BROADCASTS = (
    *("Add", "And", "Div", "Equal", "Greater", "Less", "Max", "Mean"),
    *("Min", "Mul", "Or", "Pow", "Sub", "Sum", "Xor"),
)
CONVERT = "onnx.save(onnx.version_converter.convert_version(onnx.load(PATH), 20), PATH)"


def read(model: bytes) -> tuple[onnx.ModelProto, list[Finding]]:
    """Return the graph with what makes it unfit for any other question; nothing else is asked of it then."""
    try:
        graph = onnx.load_model_from_string(model)
    except Exception as err:  # protobuf has several implementations with classes of their own
        sentence = f"it is no ONNX file or was cut off ({type(err).__name__})"
        return onnx.ModelProto(), [Finding("not-onnx", "", sentence)]
    if not graph.graph.node:
        return graph, [Finding("not-onnx", "", "it holds no graph, or was cut off before it; export it again")]
    return graph, list(_of_tensors(graph))


def of_graph(
    graph: onnx.ModelProto, product: ProductName, version: str, targets: Sequence[Target]
) -> Iterator[Finding]:
    """Yield what stands against a graph.

    Args:
        version: of the product, as `10.3.0`.
    """
    yield from _of_operators(graph)
    yield from _of_opset(graph, product, version)
    yield from _of_weights(graph)
    yield from _of_training(graph)
    if product == RTX and any(t.capability == "sm75" for t in targets):
        yield from _of_turing(graph)
    own = _own_functions(graph)
    yield from _quantised([f for f in lint(graph) if f.rule != "domain" or f.node not in own])


def readable_opsets(product: ProductName, version: str) -> range | None:
    """Return the opsets that a version, as `10.3.0`, reads; None for a major version that this was not written for."""
    major, minor = (int(part) for part in f"{version}.0".split(".")[:2])
    found = (opsets for since, opsets in OPSETS[product].items() if since[0] == major and since <= (major, minor))
    return next(found, None)


def _opset(model: onnx.ModelProto) -> int:
    return next((i.version for i in model.opset_import if i.domain in STANDARD), 0)


def _own_functions(model: onnx.ModelProto) -> set[str]:
    """Return the names of the nodes that call a function which the file defines: the parser puts its body there."""
    functions = {(f.domain, f.name) for f in model.functions}
    return {node_name(n) for n in model.graph.node if (n.domain, n.op_type) in functions}


def _of_tensors(model: onnx.ModelProto) -> Iterator[Finding]:
    """Yield the weights that are elsewhere, or are not as long as their shape says."""
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            location = next((e.value for e in tensor.external_data if e.key == "location"), "another file")
            yield Finding(
                "external-data",
                "",
                f"the weight {tensor.name} is kept in {location}, and the builder gets this file alone; "
                "put all into one: onnx.save(onnx.load(PATH), PATH)",
            )
            return
        try:
            numpy_helper.to_array(tensor)
        except Exception as err:  # numpy's and onnx's own classes
            sentence = f"the weight does not fit its shape {list(tensor.dims)} ({err}); export it again"
            yield Finding("weight", tensor.name, sentence)


def _of_opset(model: onnx.ModelProto, product: ProductName, version: str) -> Iterator[Finding]:
    opset, readable = _opset(model), readable_opsets(product, version)
    if readable is None:
        sentence = f"{product} {version} is not a version this was written for; use TensorRT 10.3 to 11, or RTX 1.7"
        yield Finding("version", "", sentence)
    elif opset == 0:
        sentence = "the file names no opset for the standard operators, so what they mean is not said; export it again"
        yield Finding("opset", "", sentence)
    elif opset not in readable:
        yield Finding(
            "opset",
            "",
            f"the file's opset is {opset}, {product} {version} reads {readable.start} to {readable.stop - 1}; "
            f"export it with --opset 20, or convert it: {CONVERT}",
        )
    elif opset < 7 and (old := [node for node in model.graph.node if node.op_type in BROADCASTS]):
        sentence = f"{old[0].op_type} of opset {opset} is not read, only of 7 and later; convert the file: {CONVERT}"
        yield Finding("broadcast", node_name(old[0]), sentence)


def _of_operators(model: onnx.ModelProto) -> Iterator[Finding]:
    known = min(_opset(model), onnx.defs.onnx_opset_version())
    for node in model.graph.node if known else ():
        if node.domain in STANDARD and node.op_type not in DROPPED and not onnx.defs.has(node.op_type, known, ""):
            sentence = f"{node.op_type} is no operator of opset {_opset(model)}; express it in standard ones"
            yield Finding("operator", node_name(node), sentence)


def _of_weights(model: onnx.ModelProto) -> Iterator[Finding]:
    for name, tensor in Graph(model).constants.items():
        if tensor.data_type in FLOATS and not np.isfinite(numpy_helper.to_array(tensor)).all():
            yield Finding("nan", name, "a weight is NaN or infinite, and so would be every answer; export it again")


def _of_training(model: onnx.ModelProto) -> Iterator[Finding]:
    """Yield the nodes that compute as in training, which no builder takes."""
    graph = Graph(model)
    for node in model.graph.node:
        batch = node.op_type == "BatchNormalization" and (attribute(node, "training_mode", 0) or any(node.output[1:]))
        switch = graph.array(node.input[2]) if node.op_type == "Dropout" and len(node.input) > 2 else None
        if batch or (switch is not None and switch.any()):
            sentence = f"{node.op_type} computes as in training; export the model in evaluation mode: model.eval()"
            yield Finding("training", node_name(node), sentence)


def _of_turing(model: onnx.ModelProto) -> Iterator[Finding]:
    """Yield the float32 matrix products, which TensorRT-RTX has no kernel for on sm75."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model).graph
    except Exception as err:  # a graph whose types do not fit; onnx raises several classes
        first = (str(err).splitlines() or [type(err).__name__])[0]
        yield Finding("types", "", f"the types in the graph do not fit together: {first}")
        return
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*inferred.value_info, *inferred.input, *inferred.output)}
    for node in model.graph.node:
        if node.op_type in PRODUCTS_OF_MATRICES and kinds.get(node.output[0]) == TensorProto.FLOAT:
            sentence = (
                f"{node.op_type} computes in float32, which TensorRT-RTX cannot on sm75; build the half-precision file "
                "alone: export with --precision fp16, then trt --precision fp16"
            )
            yield Finding("precision", node_name(node), sentence)


def _quantised(findings: Sequence[Finding]) -> list[Finding]:
    """Return the lint's findings, as one where the file is that of another backend altogether."""
    if all(any(f.rule == rule for f in findings) for rule in ("uint8", "zero-point")):
        sentence = (
            f"it quantises activations as uint8, which is for ONNX Runtime on a CPU (model.{INT8_CPU}.onnx); "
            "give TensorRT the file that `hwr-export quantize` writes as model.int8.onnx"
        )
        return [Finding("u8s8", "", sentence), *(f for f in findings if f.rule not in U8S8_RULES)]
    return list(findings)
