"""Two sides that disagree -> the first layer where they part, found by the values between the layers.

Works on float and on quantised graphs: values are paired by name, or layer by layer (`taps.pair_values`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.errors import ParityError
from hwr_export.runners import Arrays, onnx_runner
from hwr_export.spec import ModelSpec
from hwr_export.stages import NEEDS_ONNX, Stage, Suspect

IMAGES = 32
# A value is another one where it differs by this share of its size: float32 sums in another order, halves, 8 bits.
PARTED = {"fp32": 3e-5, "fp16": 2e-2}
PARTED_INTEGER = 0.15


@dataclass(frozen=True)
class Step:
    """One value of both sides: `difference` is the root mean square of theirs over that of the value itself."""

    value: str
    operator: str
    layer: str
    difference: float


def bisect(
    suspect: Suspect, stage: Stage | None, release: Path, spec: ModelSpec, images: npt.NDArray[np.uint8]
) -> dict[str, Any]:
    """Return the first layer where the two sides of the faulty border part, and how far apart every layer is.

    Raises:
        ParityError: a package that looking into the sides needs is not installed, or nothing of them can be paired.
    """
    try:
        from hwr_export.taps import float_values, load_graph, pair_values
    except ModuleNotFoundError as err:
        raise ParityError(f"--bisect: {NEEDS_ONNX}") from err
    images = images[: min(IMAGES, spec.max_batch)]
    graph = load_graph(suspect.model, "the file")
    steps: list[Step] = []
    if stage == "engine":
        sides = f"onnx.reference and {suspect.backend}, the same file"
        values = float_values(graph)
        names = [v.name for v in values]
        ours, theirs = _reference(graph, names, images), _tapped(graph, names, suspect.backend, spec, images)
        steps = [Step(v.name, v.operator, v.layer, _apart(ours[v.name], theirs[v.name])) for v in values]
    elif suspect.float_model is not None:
        sides = "the fp32 file and this one"
        whole = load_graph(suspect.float_model, "the fp32 file")
        pairs = pair_values(whole, graph)
        ours = _tapped(whole, [v.name for v, _ in pairs], suspect.backend, spec, images)
        theirs = _tapped(graph, [v.name for _, v in pairs], suspect.backend, spec, images)
        steps = [Step(a.name, a.operator, a.layer, _apart(ours[a.name], theirs[b.name])) for a, b in pairs]
    else:
        sides = "the eager model and this file"
        ours = _eager(release, spec, images)
        values = [v for v in float_values(graph) if v.name in ours]
        theirs = _tapped(graph, [v.name for v in values], suspect.backend, spec, images)
        steps = [Step(v.name, v.operator, v.layer, _apart(ours[v.name], theirs[v.name])) for v in values]
    if not steps:
        raise ParityError(f"--bisect: {sides} share no value by name and have not the same layers; nothing to compare")
    return _report(sides, steps, PARTED.get(suspect.precision, PARTED_INTEGER))


def _report(sides: str, steps: Sequence[Step], parted: float) -> dict[str, Any]:
    """Name the first step beyond `parted`; where none is, the one that adds most to what the steps before it differ."""
    beyond = [s for s in steps if not s.difference <= parted]
    before = np.maximum.accumulate([0.0, *(s.difference for s in steps)])[:-1]
    rises = [s.difference - b for s, b in zip(steps, before, strict=True)]
    first = beyond[0] if beyond else steps[int(np.argmax(rises))]
    return {
        "sides": sides,
        "first": _step_json(first),
        "parted": bool(beyond),
        "threshold": parted,
        "steps": [_step_json(s) for s in steps],
    }


def _step_json(step: Step) -> dict[str, Any]:
    difference = step.difference if np.isfinite(step.difference) else None
    return {"layer": step.layer, "operator": step.operator, "value": step.value, "difference": difference}


def _apart(ours: npt.NDArray[Any], theirs: npt.NDArray[Any]) -> float:
    if ours.size != theirs.size:
        return float("inf")
    a, b = ours.astype(np.float64).ravel(), theirs.astype(np.float64).ravel()
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return float("inf")
    size, distance = float(np.sqrt((a**2).mean())), float(np.sqrt(((a - b) ** 2).mean()))
    return distance / size if size else float("inf") if distance else 0.0


def _tapped(graph: Any, names: list[str], backend: str, spec: ModelSpec, images: npt.NDArray[np.uint8]) -> Arrays:
    from hwr_export.taps import with_outputs

    if not names:
        return {}
    with onnx_runner(backend, with_outputs(graph, names), spec, outputs=names) as runner:
        return runner.infer_all(images)


def _reference(graph: Any, names: list[str], images: npt.NDArray[np.uint8]) -> Arrays:
    from hwr_export.taps import reference_outputs, with_outputs

    return reference_outputs(with_outputs(graph, names), images, names)


def _eager(release: Path, spec: ModelSpec, images: npt.NDArray[np.uint8]) -> Arrays:
    try:
        from hwr_export.runners.eager import EagerRunner
    except ModuleNotFoundError as err:
        raise ParityError(
            f"--bisect: looking into the eager model needs {err.name}: pip install 'hwr-export[export]'"
        ) from err
    with EagerRunner.from_release(release, spec) as eager:
        return eager.inner_values(images)
