"""ONNX bytes + target -> every reason known beforehand why no plan will come of them, each with its node and the fix.

A file without a finding may still fail in the builder; one with a finding has failed in it, or is refused by its
documentation, or ends where the builder cannot say so (a plan full of NaN). Torch-free; needs onnx.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import onnx

from hwr_export.engine import rules
from hwr_export.engine.options import Profile
from hwr_export.engine.shapes import Axes, misfits
from hwr_export.engine.targets import RTX, ProductName, Target, refusal
from hwr_export.errors import EngineError
from hwr_export.qdq import quantized_layers
from hwr_export.qdq_lint import Finding
from hwr_export.release import Release, is_for
from hwr_export.spec import INPUT, ModelSpec

Asked = Callable[[onnx.ModelProto], Iterable[Finding]]


def preflight(
    model: bytes,
    spec: ModelSpec,
    targets: Sequence[Target],
    product: ProductName,
    version: str,
    batches: tuple[int, int, int],
) -> list[Finding]:
    """Return what will go wrong with a file of a release.

    Args:
        model: ONNX file content.
        version: of the product, as `10.3.0`.
        batches: (min, opt, max) of the profile.
    """
    return _preflight(model, targets, product, version, lambda graph: _of_profile(graph, spec, batches))


def preflight_file(
    model: bytes, shapes: Profile, targets: Sequence[Target], product: ProductName, version: str
) -> list[Finding]:
    """Return what will go wrong with anybody's file.

    Args:
        shapes: what was said of the inputs; those with a dynamic axis need it.
    """
    return _preflight(model, targets, product, version, lambda graph: _of_shapes(graph, shapes))


def _preflight(
    model: bytes, targets: Sequence[Target], product: ProductName, version: str, of_inputs: Asked
) -> list[Finding]:
    findings = [Finding("target", "", reason) for t in targets if (reason := refusal(t, product))]
    graph, unfit = rules.read(model)
    if unfit:
        return [*findings, *unfit]
    return [*findings, *rules.of_graph(graph, product, version, targets), *of_inputs(graph)]


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


def _inputs(model: onnx.ModelProto) -> dict[str, Axes | None]:
    """Return the inputs -> their axes, by size or name; old files list the weights among them, which are left out."""
    weights = {t.name for t in model.graph.initializer}
    kinds = {v.name: v.type.tensor_type for v in model.graph.input if v.name not in weights}
    return {
        name: [d.dim_param or d.dim_value for d in kind.shape.dim] if kind.HasField("shape") else None
        for name, kind in kinds.items()
    }


def _of_shapes(model: onnx.ModelProto, shapes: Profile) -> Iterator[Finding]:
    for name, sentence in misfits(_inputs(model), shapes):
        yield Finding("shape", name, sentence)


def _of_profile(model: onnx.ModelProto, spec: ModelSpec, batches: tuple[int, int, int]) -> Iterator[Finding]:
    """Yield where the profile's shapes are not those of the graph's input."""
    inputs = _inputs(model)
    wanted = ("N", *spec.image_shape)
    shape = inputs.get(INPUT)
    if shape is None or set(inputs) != {INPUT} or tuple(shape[1:]) != wanted[1:]:
        found = ", ".join(f"{k} {v}" for k, v in inputs.items()) or "none"
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
