import gzip
from pathlib import Path

import numpy as np
import pytest

from hwr_export.errors import DataError
from hwr_export.labels import ALPHANUMERIC, DIGITS
from tests.datasets.test_idx import to_idx
from train.counted_garbage import BARS, LIKE_DIGITS, MARKS, real_letters, synthetic_garbage

KINDS = ["noise", "blobs", "blanks", "strokes", "specks", "punctuation", "bars"]


@pytest.mark.parametrize("shape", [(28, 28), (32, 24)])
def test_every_kind_has_its_images(shape: tuple[int, int]) -> None:
    found = synthetic_garbage(*shape, DIGITS, each=20)
    assert list(found) == KINDS
    for kind, images in found.items():
        assert images.shape == (20, *shape)
        assert images.dtype == np.uint8
        distinct = {image.tobytes() for image in images}
        assert len(distinct) >= 18, kind
        assert (images.max() <= 24) == (kind == "blanks")  # too faint to be ink, and nothing else is


def test_it_is_the_same_every_time_and_another_with_another_seed() -> None:
    first, again, other = (synthetic_garbage(28, 28, DIGITS, each=5, seed=s) for s in (0, 0, 1))
    for kind in KINDS:
        np.testing.assert_array_equal(first[kind], again[kind])
        assert not np.array_equal(first[kind], other[kind])


def test_marks_are_centred_as_the_reader_centres_and_those_of_the_label_set_are_no_garbage() -> None:
    images = synthetic_garbage(28, 28, DIGITS, each=3 * len(MARKS))["punctuation"]
    for image in images:
        rows, columns = np.nonzero(image)
        assert 18 <= max(np.ptp(rows), np.ptp(columns)) + 1 <= 20
        mass = image / image.sum()
        assert abs((mass * np.indices(image.shape)[0]).sum() - 13.5) <= 3
    assert not {"punctuation", "bars"} & set(synthetic_garbage(28, 28, DIGITS + MARKS + BARS, each=2))
    dash_alone = synthetic_garbage(28, 28, MARKS.replace("-", ""), each=4)["punctuation"]
    assert all(np.ptp(np.nonzero(image)[1]) > np.ptp(np.nonzero(image)[0]) for image in dash_alone)


@pytest.fixture
def chars62(tmp_path: Path) -> Path:
    """One image a class, its pixels the class."""
    folder = tmp_path / "chars62"
    folder.mkdir()
    labels = np.arange(62, dtype=np.uint8)
    images = np.broadcast_to(labels[:, None, None], (62, 28, 28))
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"test-{name}-ubyte.gz").write_bytes(gzip.compress(to_idx(array)))
    return tmp_path


def test_letters_come_from_chars62_with_and_without_those_that_look_like_digits(
    chars62: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A class as its pixels is no character to frame.
    monkeypatch.setattr("hwr_export.datasets.chars62.normalized", lambda images, height, width, zoom: images)
    letters = real_letters((28, 28), chars62)
    shown = {kind: "".join(ALPHANUMERIC[i] for i in images[:, 0, 0]) for kind, images in letters.items()}
    assert shown["letters"] == ALPHANUMERIC[10:]
    assert set(shown["letters"]) - set(shown["letters unlike digits"]) == set(LIKE_DIGITS)
    assert real_letters((32, 32), chars62) == {}


def test_without_chars62_there_are_no_letters_and_a_broken_one_is_refused(chars62: Path, tmp_path: Path) -> None:
    assert real_letters((28, 28), tmp_path / "nowhere") == {}
    (chars62 / "chars62" / "test-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match="chars62's test part was not found"):
        real_letters((28, 28), chars62)
