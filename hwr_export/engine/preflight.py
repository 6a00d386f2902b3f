"""ONNX bytes + target -> every reason known beforehand why no plan will come of them, each with its node and the fix.

A file without a finding may still fail in the builder; one with a finding has failed in it, or is refused by its
documentation, or ends where the builder cannot say so (a plan full of NaN). Torch-free; needs onnx.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from hwr_export.engine.targets import RTX, ProductName, Target, refusal
from hwr_export.errors import EngineError
from hwr_export.qdq import Graph, node_name, quantized_layers
from hwr_export.qdq_lint import Finding, lint
from hwr_export.release import INT8_CPU, Release, is_for
from hwr_export.spec import INPUT, ModelSpec

# What a product reads from a version on, the newest first. TensorRT 11: its ONNX opset guide; 10.15: operators.md of
# its parser; 10.3: not looked up. The parser of TensorRT-RTX 1.7.1 took every opset that onnx knows, tried from 6 on.
OPSETS: dict[ProductName, dict[tuple[int, int], range]] = {
    "tensorrt": {(11, 0): range(9, 26), (10, 15): range(9, 25), (10, 0): range(9, 21)},
    "tensorrt_rtx": {(1, 0): range(6, onnx.defs.onnx_opset_version() + 1)},
}
FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)
PRODUCTS_OF_MATRICES = ("Gemm", "MatMul")
U8S8_RULES = ("uint8", "zero-point", "int32")  # what all files for ONNX Runtime on a CPU break, at every layer


def preflight(
    model: bytes,
    spec: ModelSpec,
    targets: Sequence[Target],
    product: ProductName,
    version: str,
    batches: tuple[int, int, int],
) -> list[Finding]:
    """Return what will go wrong.

    Args:
        model: ONNX file content.
        version: of the product, as `10.3.0`.
        batches: (min, opt, max) of the profile.
    """
    findings = [Finding("target", "", reason) for t in targets if (reason := refusal(t, product))]
    try:
        graph = onnx.load_model_from_string(model)
    except Exception as err:  # protobuf has several implementations with classes of their own
        return [*findings, Finding("not-onnx", "", f"it is no ONNX file or was cut off ({type(err).__name__})")]
    if not graph.graph.node:
        return [*findings, Finding("not-onnx", "", "it holds no graph, or was cut off before it; export it again")]
    if external := _external(graph):
        return [*findings, Finding("external-data", "", external)]
    rows = [*_of_opset(graph, product, version), *_of_weights(graph), *_of_profile(graph, spec, batches)]
    if product == RTX and any(t.capability == "sm75" for t in targets):
        rows += _of_turing(graph)
    return [*findings, *_unknown_operators(graph), *rows, *_quantised(lint(graph))]


def require(findings: Sequence[Finding], path: str, where: str) -> None:
    """Say what was found, if anything.

    Raises:
        EngineError: no build should be tried.
    """
    if findings:
        reasons = "; ".join(f"{f.node}: {f.sentence}" if f.node else f.sentence for f in findings[:3])
        more = f"; and {len(findings) - 3} more" if len(findings) > 3 else ""
        raise EngineError(f"{path} would not build for {where}: {reasons}{more}. Nothing was built")


def layers_in_float(model: bytes, computed: dict[str, str]) -> list[str]:
    """Return the layers that the file quantises and the plan computes in float.

    Args:
        computed: layer -> type, as `read_rtx_layers` finds it in the plan.
    """
    quantised = quantized_layers(onnx.load_model_from_string(model))
    return [name for name in quantised if computed.get(name) in ("float", "half")]


def preflight_release(release: Release, targets: Sequence[Target]) -> dict[str, Any]:
    """Return what would go wrong for each ONNX file of a release on each target, as `doctor --target --json` prints it.

    A target whose plan is built on the device is judged by the oldest TensorRT that may be met there.

    Raises:
        ReleaseError: a file is missing or changed.
    """
    batches = (1, 1, release.spec.max_batch)
    files = []
    for model in release.by_role("onnx"):
        data = release.read(model)
        for target in targets:
            row: dict[str, Any] = {"path": model.path, "target": target.name, "product": target.product}
            if not is_for(model.precision, target.product):
                files.append(row | {"status": "not for TensorRT", "findings": []})
                continue
            # A plan that is built on the device is refused from here; the question is what happens there.
            rows, version = ([target], "1.7") if target.product == RTX else ([], target.tensorrt)
            found = preflight(data, release.spec, rows, target.product, version, batches)
            status = "would fail" if found else "nothing against it"
            files.append(row | {"status": status, "findings": [vars(f) for f in found]})
    return {"schema": 1, "ok": all(f["status"] != "would fail" for f in files), "files": files}


def _external(model: onnx.ModelProto) -> str:
    for tensor in model.graph.initializer:
        if tensor.data_location == TensorProto.EXTERNAL:
            location = next((e.value for e in tensor.external_data if e.key == "location"), "another file")
            return (
                f"the weight {tensor.name} is kept in {location}, and the builder gets this file alone; "
                "put all into one: onnx.save(onnx.load(PATH), PATH)"
            )
    return ""


def _opset(model: onnx.ModelProto) -> int:
    return next((i.version for i in model.opset_import if i.domain in ("", "ai.onnx")), 0)


def _of_opset(model: onnx.ModelProto, product: ProductName, version: str) -> Iterator[Finding]:
    opset, readable = _opset(model), readable_opsets(product, version)
    if readable is None:
        sentence = f"{product} {version} is not a version this was written for; use TensorRT 10.3 to 11, or RTX 1.7"
        yield Finding("version", "", sentence)
    elif opset not in readable:
        yield Finding(
            "opset",
            "",
            f"the file's opset is {opset}, {product} {version} reads {readable.start} to {readable.stop - 1}; "
            "export it with --opset 20",
        )


def readable_opsets(product: ProductName, version: str) -> range | None:
    """Return the opsets that a version, as `10.3.0`, reads; None for a major version that this was not written for."""
    major, minor = (int(part) for part in f"{version}.0".split(".")[:2])
    found = (opsets for since, opsets in OPSETS[product].items() if since[0] == major and since <= (major, minor))
    return next(found, None)


def _unknown_operators(model: onnx.ModelProto) -> Iterator[Finding]:
    known = min(_opset(model), onnx.defs.onnx_opset_version())
    for node in model.graph.node:
        if node.domain in ("", "ai.onnx") and not onnx.defs.has(node.op_type, known, ""):
            sentence = f"{node.op_type} is no operator of opset {_opset(model)}; express it in standard ones"
            yield Finding("operator", node_name(node), sentence)


def _of_weights(model: onnx.ModelProto) -> Iterator[Finding]:
    for name, tensor in Graph(model).constants.items():
        if tensor.data_type in FLOATS and not np.isfinite(numpy_helper.to_array(tensor)).all():
            yield Finding("nan", name, "a weight is NaN or infinite, and so would be every answer; export it again")


def _of_profile(model: onnx.ModelProto, spec: ModelSpec, batches: tuple[int, int, int]) -> Iterator[Finding]:
    """Yield where the profile's shapes are not those of the graph's input."""
    inputs = {v.name: [d.dim_param or d.dim_value for d in v.type.tensor_type.shape.dim] for v in model.graph.input}
    weights = {t.name for t in model.graph.initializer}  # old files list them among the inputs
    wanted = ("N", *spec.image_shape)
    shape = inputs.get(INPUT)
    if shape is None or set(inputs) - weights != {INPUT} or tuple(shape[1:]) != wanted[1:]:
        found = ", ".join(f"{k} {v}" for k, v in inputs.items() if k not in weights) or "none"
        yield Finding("input", "", f"the graph's inputs are {found}, the release's {INPUT} {list(wanted)}")
    elif isinstance(shape[0], int) and set(batches) != {shape[0]}:
        yield Finding(
            "batch",
            INPUT,
            f"the graph takes batches of {shape[0]} only and the profile asks for {min(batches)} to {max(batches)}; "
            "export it with a dynamic batch, tracing with two images or more",
        )
    if not 1 <= batches[0] <= batches[1] <= batches[2] <= spec.max_batch:
        yield Finding(
            "batch",
            INPUT,
            f"the profile's batches {batches} are not in order within 1 to {spec.max_batch}, which the graph was "
            "exported for; choose --opt-batch in that range or export with a larger --max-batch",
        )


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
