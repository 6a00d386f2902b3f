"""Crops are framed as training's images are."""

import cv2
import numpy as np
import pytest

from hwr_export.glyph import framed, normalize
from hwr_export.release import Release
from hwr_export.runners import reader_runner
from hwr_export.scanner.form.crops import crops
from hwr_export.scanner.form.strokes import find_pieces, whole
from hwr_export.spec import PROBABILITIES
from tests.conftest import ROOT
from tests.scanner.form.written import DIGITS, alike


def cut(image: np.ndarray, level: float) -> np.ndarray:
    """Return a digit as a box's ink of a 5 x 7 mm box at 300 dpi becomes a crop."""
    side = round(28 * 60 / 20)
    ink = cv2.resize(image, (side, side), interpolation=cv2.INTER_CUBIC)
    ink = (cv2.resize(ink, None, fx=0.68, fy=0.68, interpolation=cv2.INTER_AREA) * (level / 255)).astype(np.uint8)
    (crop,), _ = crops(ink, whole(find_pieces(ink, level, 1.0)), level, (28, 28))
    assert crop is not None
    return crop


@pytest.mark.parametrize("level", [60.0, 140.0, 230.0])
def test_training_images_stay_what_they_are(level: float) -> None:
    away = [alike(cut(image, level), image) for image in DIGITS.images[:60]]
    assert np.mean(away) < 8
    assert max(away) < 24


def test_the_model_answers_as_before() -> None:
    images, labels = DIGITS.images[1000:1600], DIGITS.labels[1000:1600]
    release = Release.open(ROOT / "exported" / "digits")
    with reader_runner(release.read(release.onnx("fp32")), release.spec) as runner:
        before, after = (
            runner.infer_all(np.stack(each))[PROBABILITIES] for each in (images, [cut(i, 180.0) for i in images])
        )
    right = [(answers.argmax(axis=1) == labels).mean() for answers in (before, after)]
    assert right[1] >= right[0] - 0.005
    assert abs(before.max(axis=1).mean() - after.max(axis=1).mean()) < 0.005


def test_framing_is_that_of_normalize() -> None:
    grey = np.full((60, 50), 255, np.uint8)
    grey[10:50, 20:26] = 0
    np.testing.assert_array_equal(framed(255 - grey[10:50, 20:26], 28, 28), normalize(grey, 28, 28))
