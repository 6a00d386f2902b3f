import io

import numpy as np
import pytest
from PIL import Image

from hwr_export.labels import ALPHANUMERIC, DIGITS
from train.charts import confusion_png, curves_png, risk_coverage_png


def evaluation(labels: str, wrong: int) -> dict:
    """What the pictures read of an evaluation, with `wrong` mistakes on each class."""
    counts = np.eye(len(labels), dtype=int) * (100 - wrong) + np.roll(np.eye(len(labels), dtype=int), 1, axis=1) * wrong
    points = {f"{r} %": {"rejected": r * len(labels), "error": wrong / 100 / (1 + r)} for r in (1, 2, 3, 5)}
    bins = [{"confidence": c, "accuracy": c**2, "n": n} for c, n in ((0.3, 1), (0.5, 30), (0.7, 100), (0.99, 800))]
    return {
        "labels": labels,
        "confusion": counts.tolist(),
        "data": "made",
        "n": 100 * len(labels),
        "error_percent": float(wrong),
        "rejected": 0.04,
        "error_accepted": wrong / 1000,
        "at_rejection": points,
        "risk_coverage": {"coverage": [1.0, 0.9, 0.5, 0.01], "risk": [wrong / 100, wrong / 200, wrong / 400, 0.0]},
        "aurc": 0.01,
        "ece": 0.01,
        "ece_before_temperature": 0.02,
        "temperature": 1.2,
        "reliability": {"before": bins, "after": bins},
    }


def opened(png: bytes) -> Image.Image:
    assert png.startswith(b"\x89PNG")
    return Image.open(io.BytesIO(png)).convert("RGB")


@pytest.mark.parametrize("labels", ["01", DIGITS, ALPHANUMERIC])
def test_the_confusion_picture_grows_with_the_classes_and_shows_mistakes(labels: str) -> None:
    coloured = []
    for wrong in (0, 7):
        image = opened(confusion_png(evaluation(labels, wrong)))
        cells = (62 if len(labels) <= 16 else 23) * len(labels)
        assert cells < image.height < cells + 300
        pixels = np.asarray(image).astype(int)
        coloured.append(((pixels[..., 0] - pixels[..., 2]) > 60).sum())
    assert coloured[1] > coloured[0] + 50 * len(labels)


@pytest.mark.parametrize("wrong", [0, 3])
def test_risk_and_reliability_stand_side_by_side(wrong: int) -> None:
    image = opened(risk_coverage_png(evaluation(DIGITS, wrong)))
    assert image.size == (1250, 540)
    for half in (image.crop((0, 0, 625, 540)), image.crop((625, 0, 1250, 540))):
        assert len(half.getcolors(1 << 20)) > 50


@pytest.mark.parametrize("epochs", [1, 12])
@pytest.mark.parametrize("accuracy", [0.5, 1.0])
def test_the_curves_have_three_panels(epochs: int, accuracy: float) -> None:
    records = [
        {
            "epoch": e,
            "train_loss": 1 / e,
            "validation_loss": 2 / e,
            "validation_accuracy": accuracy,
            "learning_rate": 0.1,
        }
        for e in range(1, epochs + 1)
    ]
    image = opened(curves_png(records, best_epoch=epochs))
    assert image.size == (1400, 420)
    for i in range(3):
        assert len(image.crop((i * 466, 0, (i + 1) * 466, 420)).getcolors(1 << 20)) > 30
