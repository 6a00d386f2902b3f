"""Images of single characters -> labels with confidences, through the release's ONNX file. Torch-free."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.glyph import load_grey, normalize
from hwr_export.release import Release
from hwr_export.runners import Runner, reader_runner
from hwr_export.spec import PROBABILITIES, ModelSpec


@dataclass(frozen=True)
class Answer:
    """What is read of one crop; `label` is None where there is no ink, `rejected` that it is not to be used."""

    label: str | None
    confidence: float
    rejected: bool


def read_images(release: Release, paths: Sequence[Path]) -> dict[str, Any]:
    """Read every image; `label` is None where there is no ink, and `rejected` says that the answer is not to be used.

    Raises:
        ImageError: a path is no image; nothing is reported then.
        ReleaseError: the model is missing or changed.
        RunnerError: the model cannot be run.
    """
    spec = release.spec
    crops = [normalize(load_grey(path), *spec.image_shape) for path in paths]
    if any(crop is not None for crop in crops):
        with reader_runner(release.read(release.onnx("fp32")), spec) as runner:
            answers = recognise(runner, crops)
    else:
        answers = [None] * len(crops)
    results = [
        {"image": str(path), **asdict(answer or Answer(None, 0.0, True))}
        for path, answer in zip(paths, answers, strict=True)
    ]
    return {"schema": 1, "release": release.manifest.name, "results": results}


def recognise(runner: Runner, crops: Sequence[npt.NDArray[np.uint8] | None]) -> list[Answer | None]:
    """Return what the model says of each crop as `normalize` makes it, uint8 (height, width); None for None.

    Raises:
        RunnerError: the backend failed.
    """
    inked = [crop for crop in crops if crop is not None]
    rows = iter(runner.infer_all(np.stack(inked))[PROBABILITIES] if inked else ())
    return [None if crop is None else _answer(next(rows), runner.spec) for crop in crops]


def _answer(row: npt.NDArray[np.float32], spec: ModelSpec) -> Answer:
    confidence = float(row.max())
    return Answer(spec.labels[int(row.argmax())], confidence, confidence < spec.reject_below)
