"""A file that failed on a backend -> the stage that is at fault, and the fault's name where it is a known one.

Each border between two stages is judged by the tensors on both sides of it: what the graph made of the pixels against
the eager preprocessing, one engine's answers against another's, a quantised file's against the float file's, and that
one's against the eager model's. Looking into a graph needs the package onnx; without it that border is left open.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt

from hwr_export.errors import RunnerError
from hwr_export.goldens import SYNTHETIC, Goldens
from hwr_export.runners import ONNX_BACKENDS, Arrays, onnx_runner, why_absent
from hwr_export.spec import LOGITS, PROBABILITIES, ModelSpec
from hwr_export.statistics import softmax

if TYPE_CHECKING:
    from onnx import ModelProto

Stage = Literal["preprocessing", "export", "quantization", "engine"]

# One side is at fault where the other is this much nearer to what is expected.
MUCH_NEARER = 0.5
# A named fault must explain this share of the distance and of the answers.
EXPLAINED, AGREEING = 0.75, 0.98
# How far a preprocessed tensor may be from the eager one, as a share of its largest value.
BORDER_SLACK = {"fp32": 1e-5, "fp16": 2e-3}
INTEGER_SLACK = 2e-2
REFERENCE_IMAGES = 32  # for the standard's own evaluator, which is slow
NEEDS_ONNX = "looking into the graph needs the package onnx: pip install 'hwr-export[export]'"

WAYS_TO_TURN: dict[str, Callable[[npt.NDArray[np.uint8]], npt.NDArray[np.uint8]]] = {
    "transposed input": lambda images: np.ascontiguousarray(images.transpose(0, 2, 1)),
    "inverted polarity": lambda images: 255 - images,
}


@dataclass(frozen=True)
class Suspect:
    """A file that failed on a backend. `float_model` is the release's fp32 file, None if it is the suspect itself or
    is not there; `sees_pixels` says that the network has preprocessing of its own, so that border cannot be read."""

    model: bytes
    precision: str
    backend: str
    float_model: bytes | None = None
    sees_pixels: bool = False


@dataclass(frozen=True)
class Finding:
    """`stage` is None where no border could be read; `fault` names a known fault; `why` is a sentence."""

    stage: Stage | None
    fault: str | None
    why: str


def locate(suspect: Suspect, spec: ModelSpec, goldens: Goldens) -> Finding:
    """Say which stage made a failing file (or its backend) disagree with the goldens."""
    real = goldens.labels != SYNTHETIC if (goldens.labels != SYNTHETIC).any() else np.ones(len(goldens), bool)
    images, expected = goldens.images[real], goldens.logits[real]
    own: Stage = "export" if suspect.precision == "fp32" else "quantization"
    here = _run(suspect.backend, suspect.model, spec, images)
    # Before engines: they disagree on such a file because some swallow NaN and some do not.
    if here is not None and not np.isfinite(here[LOGITS]).all() and (spoilt := _weights_without_value(suspect)):
        return Finding(own, "weights without a value", f"NaN or infinity in {', '.join(spoilt[:3])}")
    there, other = _elsewhere(suspect, spec, images)
    if _much_nearer(there, here, expected):
        fault = _known_fault(suspect, spec, images, expected, here)
        text = f"{other} answers the same file as expected and {suspect.backend} does not"
        return Finding("engine", fault, text if here else f"{other} runs the file and {suspect.backend} cannot")
    if here is None:
        return Finding(own, "damaged file", "no engine can load the file")
    fault = _known_fault(suspect, spec, images, expected, here)
    wrong_pixels = _preprocessing_fault(suspect, spec, goldens, real)
    if wrong_pixels is not None:
        return Finding("preprocessing", wrong_pixels.fault or fault, wrong_pixels.why)
    if fault in WAYS_TO_TURN:
        return Finding("preprocessing", fault, f"the file answers as expected to {fault.replace(' input', '')} images")
    if suspect.float_model == suspect.model:
        return Finding("engine", fault, f"{suspect.backend} computes the float file in {suspect.precision}")
    if suspect.float_model is not None:
        upstream = _run(suspect.backend, suspect.float_model, spec, images)
        if not _much_nearer(upstream, here, expected):
            return Finding("export", fault, "the float file that it was made from does not answer as expected either")
        return Finding("quantization", fault, "the float file answers as expected and the quantised one does not")
    if suspect.precision != "fp32":
        return Finding(None, fault, "the release has no fp32 file to compare the quantised one with")
    if not suspect.sees_pixels and not _has_onnx():
        return Finding(None, fault, f"preprocessing and export cannot be told apart: {NEEDS_ONNX}")
    return Finding("export", fault, "the graph's preprocessing is the eager one and its answers are not")


def _elsewhere(suspect: Suspect, spec: ModelSpec, images: npt.NDArray[np.uint8]) -> tuple[Arrays | None, str]:
    """Run a suspect on another backend, or as the standard defines it; None where nothing else can run it."""
    for backend in ONNX_BACKENDS:
        if backend != suspect.backend and not why_absent(backend):
            found = _run(backend, suspect.model, spec, images)
            if found is not None:
                return found, backend
    if not _has_onnx():
        return None, ""
    from hwr_export.taps import reference_outputs

    try:
        few = reference_outputs(suspect.model, images[:REFERENCE_IMAGES])
    except RunnerError:
        return None, ""
    return few, "onnx.reference"


def _run(backend: str, model: bytes, spec: ModelSpec, images: npt.NDArray[np.uint8]) -> Arrays | None:
    """Return the outputs, or None where they are none: not loaded, not run, or of another shape."""
    try:
        with onnx_runner(backend, model, spec) as runner:
            found = runner.infer_all(images)
    except RunnerError:
        return None
    return found if found[LOGITS].shape == (len(images), len(spec.labels)) else None


def _distance(found: Arrays | None, expected: npt.NDArray[np.float32]) -> float:
    """Return the mean logit difference, over the images that were run; infinite where there is no number."""
    if found is None:
        return float("inf")
    difference = float(np.abs(found[LOGITS] - expected[: len(found[LOGITS])]).mean())
    return difference if np.isfinite(difference) else float("inf")


def _much_nearer(one: Arrays | None, other: Arrays | None, expected: npt.NDArray[np.float32]) -> bool:
    distance = _distance(one, expected)
    return bool(np.isfinite(distance)) and distance <= MUCH_NEARER * _distance(other, expected)


def _known_fault(
    suspect: Suspect,
    spec: ModelSpec,
    images: npt.NDArray[np.uint8],
    expected: npt.NDArray[np.float32],
    here: Arrays | None,
) -> str | None:
    """Try what would undo each known fault; the one that does is its name."""
    if here is None or not np.isfinite(here[LOGITS]).all():
        return None
    for name, turn in WAYS_TO_TURN.items():
        if name == "transposed input" and images.shape[1] != images.shape[2]:
            continue
        turned = _run(suspect.backend, suspect.model, spec, turn(images))
        if turned is not None and _explains(turned[LOGITS], here[LOGITS], expected):
            return name
    order = _class_order(here[LOGITS], expected)
    if order is not None and _explains(here[LOGITS][:, order], here[LOGITS], expected):
        moved = [spec.labels[i] for i, j in enumerate(order) if i != j]
        return f"swapped labels ({', '.join(moved)})"
    return _softmax_fault(here, spec)


def _explains(undone: npt.NDArray[Any], found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> bool:
    before, after = np.abs(found - expected).mean(), np.abs(undone - expected).mean()
    agreeing = (undone.argmax(axis=1) == expected.argmax(axis=1)).mean()
    return bool(after <= (1 - EXPLAINED) * before and agreeing >= AGREEING)


def _class_order(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> list[int] | None:
    """Return for each class the output that is nearest to it, if that is another order of the same classes."""
    nearest = np.abs(found[:, :, None] - expected[:, None, :]).mean(axis=0).argmin(axis=0)
    order = [int(i) for i in nearest]
    identity = list(range(len(order)))
    return order if sorted(order) == identity != order else None


def _softmax_fault(found: Arrays, spec: ModelSpec) -> str | None:
    """Name what was done to the probabilities of logits that may be right."""
    logits, probabilities = found[LOGITS].astype(np.float64), found[PROBABILITIES].astype(np.float64)
    if np.abs(probabilities - softmax(logits, spec.temperature)).max() < INTEGER_SLACK / 10:
        return None
    if not np.allclose(probabilities.sum(axis=1), 1, atol=1e-2):
        return "softmax over the wrong axis"
    if np.abs(probabilities - softmax(logits)).max() < INTEGER_SLACK / 10:
        return "temperature lost"
    return None


def _preprocessing_fault(
    suspect: Suspect, spec: ModelSpec, goldens: Goldens, real: npt.NDArray[np.bool_]
) -> Finding | None:
    """Compare what the graph makes of the pixels with the eager preprocessing; None where they agree."""
    if suspect.sees_pixels or not _has_onnx():
        return None
    from hwr_export.taps import load_graph, preprocessing_values, with_outputs

    images, expected = goldens.images[real], goldens.preprocessed[real]
    graph: ModelProto = load_graph(suspect.model, "the file")
    names = preprocessing_values(graph)
    if not names:
        return None
    with onnx_runner(suspect.backend, with_outputs(graph, names), spec, outputs=names) as runner:
        found = runner.infer_all(images)
    tensors = [v.astype(np.float64).reshape(expected.shape) for v in found.values() if v.size == expected.size]
    slack = BORDER_SLACK.get(suspect.precision, INTEGER_SLACK) * float(np.abs(expected).max())
    if not tensors or any(np.abs(tensor - expected).max() <= slack for tensor in tensors):
        return None
    return _name_of_pixels(tensors[-1][:, 0], images, spec, slack)


def _name_of_pixels(
    found: npt.NDArray[np.float64], images: npt.NDArray[np.uint8], spec: ModelSpec, slack: float
) -> Finding:
    """Say what was done to pixels (N, H, W) instead of what should have been: another scale and shift, or turned."""
    p = spec.preprocessing
    wanted = f"{1 / (255 * p.std):.4g} x pixel {-p.mean / p.std:+.4g}"
    for turned in (False, True):
        if turned and images.shape[1] != images.shape[2]:
            break
        pixels = (images.transpose(0, 2, 1) if turned else images).astype(np.float64)
        scale, shift = np.polyfit(pixels.ravel(), found.ravel(), 1)
        if np.abs(scale * pixels + shift - found).max() > slack + 1e-4 * np.abs(found).max():
            continue
        why = f"the graph makes {scale:.4g} x pixel {shift:+.4g} of the pixels where the model learned {wanted}"
        if turned:
            return Finding("preprocessing", "transposed input", f"{why}, rows and columns exchanged")
        return Finding("preprocessing", "inverted polarity" if scale < 0 else "missing normalisation", why)
    return Finding("preprocessing", None, f"what the graph makes of the pixels is not {wanted}")


def _weights_without_value(suspect: Suspect) -> list[str]:
    if not _has_onnx():
        return []
    from hwr_export.taps import load_graph, weights_without_value

    return weights_without_value(load_graph(suspect.model, "the file"))


def _has_onnx() -> bool:
    try:
        import hwr_export.taps  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True
