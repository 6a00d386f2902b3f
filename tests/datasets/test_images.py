"""Folders and CSV files of labelled images."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwr_export.datasets import Dataset, content_sha256, load_image_parts, load_labelled
from hwr_export.errors import DataError
from hwr_export.glyph import load_grey, normalize

COUNT = 72


def scan(image: np.ndarray, path: Path, dark: bool = True, times: int = 3) -> None:
    """Write a digit as a scanner would: larger, dark on light."""
    path.parent.mkdir(parents=True, exist_ok=True)
    side = (image.shape[1] * times, image.shape[0] * times)
    Image.fromarray(255 - image if dark else image).resize(side, Image.Resampling.BICUBIC).save(path)


def names(data: Dataset) -> list[str]:
    return [data.label_set[i] for i in data.labels]


@pytest.fixture
def folder(tmp_path: Path, mnist_test: Dataset) -> Path:
    """Scanned digits, each below its own name."""
    for i in range(COUNT):
        scan(mnist_test.images[i], tmp_path / "labelled" / str(mnist_test.labels[i]) / f"{i:03}.png", dark=i % 2 == 0)
    return tmp_path / "labelled"


def test_a_folder_is_read_as_hwr_export_reads(folder: Path) -> None:
    parts = load_image_parts(folder)
    assert list(parts) == ["train"]
    data = parts["train"]
    files = sorted(folder.rglob("*.png"))
    assert data.label_set == "0123456789"
    assert names(data) == [path.parent.name for path in files]
    expected = np.stack([normalize(load_grey(path), 28, 28) for path in files])
    np.testing.assert_array_equal(data.images, expected)
    assert (data.name, data.writers) == ("folder:labelled", None)
    assert data.sha256 == content_sha256(data.images, data.labels) == load_image_parts(folder)["train"].sha256


def test_code_points_name_what_a_file_system_cannot(folder: Path) -> None:
    (folder / "7").rename(folder / "U+002F")
    (folder / "1").rename(folder / "E\u0301")  # decomposed, as macOS keeps it
    assert load_labelled(folder).label_set == "/02345689É"
    assert names(load_labelled(folder, "É/98654320")) == names(load_labelled(folder))


def test_declared_parts_are_kept_apart_and_can_be_read_whole(folder: Path, mnist_test: Dataset) -> None:
    root = folder.parent / "parts"
    for start, part in ((0, "train"), (40, "validation"), (50, "test")):
        for i in range(start, start + 10):
            scan(mnist_test.images[i], root / part / str(mnist_test.labels[i]) / f"{i}.png")
    (root / ".cache").mkdir()
    (root / "README.txt").write_text("who wrote this")
    parts = load_image_parts(root, "0123456789")
    assert [(part, data.split, len(data)) for part, data in parts.items()] == [
        ("train", "train", 10),
        ("validation", "validation", 10),
        ("test", "test", 10),
    ]
    assert sorted(names(parts["test"])) == sorted(map(str, mnist_test.labels[50:60]))
    whole = load_labelled(root, "0123456789")
    assert len(whole) == 30
    np.testing.assert_array_equal(whole.images[20:], parts["test"].images)


def test_images_that_are_crops_already_can_be_taken_as_they_are(tmp_path: Path, mnist_test: Dataset) -> None:
    for i in range(20):
        scan(mnist_test.images[i], tmp_path / "crops" / str(mnist_test.labels[i]) / f"{i:02}.png", dark=False, times=1)
    data = load_labelled(tmp_path / "crops", prepare="as-is")
    order = sorted(range(20), key=lambda i: (mnist_test.labels[i], i))
    np.testing.assert_array_equal(data.images, mnist_test.images[order])
    assert not np.array_equal(load_labelled(tmp_path / "crops").images, data.images)
    assert load_labelled(tmp_path / "crops", shape=(32, 20)).images.shape == (20, 32, 20)

    scan(mnist_test.images[0], tmp_path / "crops" / "7" / "dark.png", times=1)
    scan(mnist_test.images[0], tmp_path / "crops" / "7" / "large.png", dark=False)
    Image.new("RGB", (28, 28)).save(tmp_path / "crops" / "7" / "colour.png")
    Image.new("L", (28, 28)).save(tmp_path / "crops" / "7" / "blank.png")
    with pytest.raises(DataError) as caught:
        load_labelled(tmp_path / "crops", prepare="as-is")
    for message in (
        "dark.png is dark on light",
        "large.png is L, 84 x 84; `prepare: as-is` takes 8-bit grey, 28 x 28",
        "colour.png is RGB, 28 x 28",
        "blank.png shows no ink",
    ):
        assert message in str(caught.value)


def test_what_cannot_be_used_is_named_five_at_most(folder: Path) -> None:
    (folder / "7" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nno")
    (folder / "7" / "notes.txt").write_text("no image")
    Image.new("L", (30, 30), 255).save(folder / "7" / "empty.png")
    with pytest.raises(DataError) as caught:
        load_labelled(folder)
    message = str(caught.value)
    assert "broken.png" in message
    assert "notes.txt is not an image" in message
    assert "empty.png shows no ink" in message
    assert "\n" not in message

    for i in range(9):
        Image.new("L", (30, 30), 255).save(folder / "8" / f"empty{i}.png")
    with pytest.raises(DataError, match=r"; and 7 more; correct or remove them$") as caught:
        load_labelled(folder)
    assert str(caught.value).count("labelled/") == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("digits/1.png", "labelled/digits is named after no class .its character, or its code point as in U.0041."),
        ("U+D800/1.png", "named after no class"),
        ("1.png", r"labelled/1\.png lies in no class folder"),
        ("x/.keep", "labelled/x holds no image"),
        ("test/1/1.png", "labelled/0 lies beside the folders test"),
        ("x/1.png", r"1\.png has the label 'x', outside '0123456789'"),
    ],
)
def test_folders_that_say_no_class_are_refused(folder: Path, mnist_test: Dataset, name: str, message: str) -> None:
    scan(mnist_test.images[0], folder / "made.png")
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "made.png").rename(folder / name)
    with pytest.raises(DataError, match=message):
        load_image_parts(folder, "0123456789")


def test_nothing_and_one_class_are_refused(tmp_path: Path, mnist_test: Dataset) -> None:
    with pytest.raises(DataError, match=r"holds no images; expected are folders such as A/"):
        load_image_parts(tmp_path)
    with pytest.raises(DataError, match="there is no folder or CSV file"):
        load_image_parts(tmp_path / "nowhere")
    scan(mnist_test.images[0], tmp_path / "7" / "a.png")
    with pytest.raises(DataError, match="at least two characters, one a class; got '7'"):
        load_image_parts(tmp_path)


# -- CSV -------------------------------------------------------------------------------------------------------------


def write_csv(folder: Path, rows: list[dict[str, str]], columns: tuple[str, ...]) -> Path:
    path = folder.parent / "labels.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:  # as a spreadsheet saves it
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


@pytest.fixture
def rows(folder: Path) -> list[dict[str, str]]:
    parts = ("train", "train", "validation", "test")
    return [
        {
            "path": str(path.relative_to(folder.parent)),
            "label": path.parent.name,
            "writer": f"writer {i % 8}",
            "split": parts[i % 4],
        }
        for i, path in enumerate(sorted(folder.rglob("*.png")))
    ]


def test_a_csv_is_its_folder_with_writers_and_parts(folder: Path, rows: list[dict[str, str]]) -> None:
    path = write_csv(folder, rows, ("path", "label", "writer", "split"))
    whole = load_labelled(path)
    np.testing.assert_array_equal(whole.images, load_labelled(folder).images)
    assert names(whole) == [row["label"] for row in rows]
    assert whole.writers.tolist() == [i % 8 for i in range(COUNT)]
    assert whole.name == "csv:labels.csv"
    parts = load_image_parts(path)
    assert {part: len(data) for part, data in parts.items()} == {"train": 36, "validation": 18, "test": 18}
    assert set(parts["test"].writers) == {3, 7}


def test_a_csv_needs_only_paths_and_labels(folder: Path, rows: list[dict[str, str]]) -> None:
    short = [{"path": row["path"], "label": f"U+{ord(row['label']):04x}"} for row in rows]
    parts = load_image_parts(write_csv(folder, short, ("path", "label")))
    assert list(parts) == ["train"]
    assert parts["train"].writers is None
    assert names(parts["train"]) == [row["label"] for row in rows]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": ""}, "line 3 does not have one value for each of path, label, writer, split"),
        ({"writer": ""}, "line 3 does not have one value"),
        ({"label": "12"}, "line 3 has the label '12', which is neither a character nor U"),
        ({"split": "tset"}, "line 3 has the split 'tset'; valid are train, validation, test"),
        ({"path": "labelled/nowhere.png"}, r"there is no image .*nowhere\.png"),
        ({"label": "x"}, r"line 3: .*\.png has the label 'x', outside '0123456789'"),
    ],
)
def test_rows_that_cannot_be_used_are_named(folder: Path, rows, change: dict[str, str], message: str) -> None:
    rows[1] |= change
    path = write_csv(folder, rows, ("path", "label", "writer", "split"))
    with pytest.raises(DataError, match=message) as caught:
        load_image_parts(path, "0123456789")
    assert "labels.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path;label\na.png;1\n", "has the columns path;label; expected are path, label and optionally writer, split"),
        (b"path,label,writers\na.png,1,2\n", "has the columns path, label, writers; expected"),
        (b"path\na.png\n", "has the columns path; expected"),
        (b"path,label,label\na.png,1,2\n", "expected are path, label"),
        (b"", r"has the columns .none.; expected"),
        (b"path,label\n", "has a header but no rows"),
        (b"path,label\na.png,1,2\n", "line 2 does not have one value for each of path, label"),
        (b"path,label\n\xff\xfe,1\n", "is not a CSV file in UTF-8"),
        (b'path,label\n"a.png"x,1\n', "is not a CSV file in UTF-8"),
    ],
)
def test_what_is_no_such_csv_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_image_parts(path)
