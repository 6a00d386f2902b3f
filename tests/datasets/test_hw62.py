from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwr_export.datasets import Dataset, load_dataset
from hwr_export.errors import DataError


@pytest.fixture
def hw62(tmp_path: Path, mnist_test: Dataset) -> Path:
    """Three real digits as photographs named as hw62 names them, one of them empty, and what a file system leaves."""
    folder = tmp_path / "hw62" / "images"
    folder.mkdir(parents=True)
    for name, index in (("DIGIT_7_12.png", 0), ("SMALL_l_3.PNG", 2)):
        photograph = Image.fromarray(255 - mnist_test.images[index]).resize((50, 50), Image.Resampling.BICUBIC)
        photograph.convert("RGBA").save(folder / name, "PNG")
    Image.new("RGBA", (40, 60), "white").save(folder / "CAP_O_0.png")
    (folder / ".DS_Store").write_bytes(b"")
    return tmp_path


def test_labels_are_in_the_names_and_an_image_without_ink_is_kept(hw62: Path) -> None:
    data = load_dataset("hw62", "test", hw62)
    assert [data.label_set[i] for i in data.labels] == ["O", "7", "l"]
    assert data.images.shape == (3, 28, 28)
    assert data.images.dtype == np.uint8
    assert [bool(image.any()) for image in data.images] == [False, True, True]
    assert data.images[1][[0, -1]].max() == 0  # white on black, in the middle


def test_it_is_not_to_be_learned_from(hw62: Path) -> None:
    with pytest.raises(DataError, match="hw62 has a test part alone, there is no train part"):
        load_dataset("hw62", "train", hw62)


def test_what_is_not_hw62_is_refused(hw62: Path, tmp_path: Path) -> None:
    folder = hw62 / "hw62" / "images"
    (folder / "DIGIT_1_0.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"hw62 cannot be used: .*DIGIT_1_0\.png is not an image"):
        load_dataset("hw62", "test", hw62)
    (folder / "DIGIT_1_0.png").rename(folder / "DIGIT_x_0.png")
    with pytest.raises(DataError, match=r"DIGIT_x_0\.png is not named as hw62's images are: CAP_A_0\.png"):
        load_dataset("hw62", "test", hw62)
    with pytest.raises(DataError, match=r"hw62 was not found .*--data-root"):
        load_dataset("hw62", "test", tmp_path / "nowhere")
