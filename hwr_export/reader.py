"""Images of single characters -> labels with confidences, through the release's ONNX file. Torch-free."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hwr_export.glyph import load_grey, normalize
from hwr_export.release import Release
from hwr_export.runners import reader_runner
from hwr_export.spec import PROBABILITIES


def read_images(release: Release, paths: Sequence[Path]) -> dict[str, Any]:
    """Read every image; `label` is None where there is no ink, and `rejected` says that the answer is not to be used.

    Raises:
        ImageError: a path is no image; nothing is reported then.
        ReleaseError: the model is missing or changed.
        RunnerError: the model cannot be run.
    """
    spec = release.spec
    crops = [normalize(load_grey(path), *spec.image_shape) for path in paths]
    inked = [crop for crop in crops if crop is not None]
    probabilities: Iterator[npt.NDArray[np.float32]] = iter(())
    if inked:
        with reader_runner(release.read(release.onnx("fp32")), spec) as runner:
            probabilities = iter(runner.infer_all(np.stack(inked))[PROBABILITIES])
    results = []
    for path, crop in zip(paths, crops, strict=True):
        if crop is None:
            results.append({"image": str(path), "label": None, "confidence": 0.0, "rejected": True})
            continue
        row = next(probabilities)
        confidence = float(row.max())
        results.append(
            {
                "image": str(path),
                "label": spec.labels[int(row.argmax())],
                "confidence": confidence,
                "rejected": confidence < spec.reject_below,
            }
        )
    return {"schema": 1, "release": release.manifest.name, "results": results}
