"""Answers of one side, and what another side answers instead -> what a report shows of them, compact enough to keep.

Outputs are finite, (N, classes) each; labels int64 (N,), -1 where unknown. Nothing here is judged: `decisions` and
`task` do that. Flipped images are kept as PNG, so that a report needs no dataset.
"""

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from hwr_export.goldens import SYNTHETIC
from hwr_export.runners import Arrays
from hwr_export.spec import LOGITS, PROBABILITIES
from hwr_export.statistics import IntArray, clustered_interval, reliability, risk_coverage_curve, wilson_interval

MOST_FLIPS = 24
CURVE_POINTS = 80


def describe_answers(outputs: Arrays, labels: npt.NDArray[np.int64], writers: IntArray | None) -> dict[str, Any] | None:
    """Return what one side gets right and how sure it is; None where no image has a label.

    Returns:
        `right` of `n`, `accuracy_ci95` as fractions; `confusion` [true class, answered class, images] where there are
        any; `reliability` [mean confidence, accuracy, images] a bin; `risk_coverage` [fraction accepted, error among
        the accepted], from all to few.
    """
    known = labels != SYNTHETIC
    if not known.any():
        return None
    labels, probabilities = labels[known], outputs[PROBABILITIES][known]
    answers = outputs[LOGITS][known].argmax(axis=1)
    right, n = answers == labels, len(labels)
    interval = wilson_interval(int(right.sum()), n) if writers is None else clustered_interval(right, writers[known])
    pairs, counts = np.unique(np.stack([labels, answers]), axis=1, return_counts=True)
    coverage, risk = risk_coverage_curve(probabilities.max(axis=1), right, CURVE_POINTS)
    return {
        "right": int(right.sum()),
        "n": n,
        "accuracy_ci95": list(interval),
        "confusion": [[int(true), int(answer), int(k)] for (true, answer), k in zip(pairs.T, counts, strict=True)],
        "reliability": [[round(c, 6), round(a, 6), k] for c, a, k in reliability(probabilities, labels)],
        "risk_coverage": [[round(float(c), 6), round(float(r), 6)] for c, r in zip(coverage, risk, strict=True)],
    }


def flipped_images(
    expected: Arrays,
    found: Arrays,
    images: npt.NDArray[np.uint8],
    labels: npt.NDArray[np.int64],
    most: int = MOST_FLIPS,
) -> list[dict[str, Any]]:
    """Return the images, uint8 (N, H, W), that two sides read differently, those first where the old was surest."""
    flips = np.flatnonzero(expected[LOGITS].argmax(axis=1) != found[LOGITS].argmax(axis=1))
    margins = _margins(expected[LOGITS][flips])
    return [
        {
            "index": int(i),
            "label": int(labels[i]) if labels[i] != SYNTHETIC else None,
            "eager": _answer(expected, i),
            "exported": _answer(found, i),
            "png": _png(images[i]),
        }
        for i in flips[np.argsort(-margins, kind="stable")][:most]
    ]


def _answer(outputs: Arrays, i: int) -> dict[str, Any]:
    logits = outputs[LOGITS][i]
    return {
        "answer": int(logits.argmax()),
        "margin": round(float(_margins(logits[None])[0]), 4),
        "confidence": round(float(outputs[PROBABILITIES][i].max()), 6),
    }


def _margins(logits: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Return the distance between the two largest logits of each row."""
    top = np.sort(logits.astype(np.float64), axis=1)[:, -2:]
    return np.asarray(top[:, 1] - top[:, 0])


def _png(image: npt.NDArray[np.uint8]) -> str:
    """Return an image as PNG in base64."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
