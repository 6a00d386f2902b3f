"""Calibration sees training images alone, evenly over the classes, and never one that the model is judged by."""

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hwr_export import calibration
from hwr_export.calibration import Sample, content_hashes, draw_samples, even_order, refuse_evaluation_images
from hwr_export.datasets import Dataset, load_mnist
from hwr_export.errors import DataError, UsageError
from hwr_export.spec import ModelSpec, Preprocessing

SPEC = ModelSpec(labels="0123456789", preprocessing=Preprocessing(), parameters=1)
MNIST = {"data": {"name": "mnist"}}


@pytest.fixture(scope="module")
def small(mnist_test: Dataset) -> dict[str, Dataset]:
    """The first 1,200 training and 300 test images of MNIST, as if that were all."""
    train = load_mnist("train")
    return {"train": part(train, 1200), "test": part(mnist_test, 300)}


def part(data: Dataset, n: int) -> Dataset:
    return replace(data, images=data.images[:n], labels=data.labels[:n], writers=None)


@pytest.fixture
def published(small: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch) -> dict[str, Dataset]:
    parts = dict(small)
    monkeypatch.setattr(calibration, "load_dataset", lambda name, split, root: parts[split])
    return parts


def test_the_samples_are_even_seeded_and_apart(published: dict[str, Dataset]) -> None:
    drawn = draw_samples(SPEC, MNIST, count=200, held_out=300)
    counts = np.bincount(drawn.calibration.labels)
    assert counts.tolist() == [20] * 10
    assert (len(drawn.calibration), len(drawn.held_out)) == (200, 300)
    assert not set(drawn.calibration.hashes) & set(drawn.held_out.hashes)
    assert not set(drawn.calibration.hashes) & set(content_hashes(published["test"].images))
    assert (drawn.calibration.split, drawn.held_out.split) == ("train", "train")
    again = draw_samples(SPEC, MNIST, count=200, held_out=300)
    assert again.calibration.sha256 == drawn.calibration.sha256
    assert draw_samples(SPEC, MNIST, count=200, seed=1).calibration.sha256 != drawn.calibration.sha256


def test_what_is_recorded_of_a_sample(published: dict[str, Dataset]) -> None:
    sample = draw_samples(SPEC, MNIST, count=50, held_out=100).calibration
    assert sample.description(SPEC.labels) == {
        "data": "mnist",
        "split": "train",
        "n": 50,
        "sha256": sample.sha256,
        "classes": 10,
        "per_class": dict.fromkeys("0123456789", 5),
    }
    hashes = sorted(hashlib.sha256(image.tobytes()).hexdigest() for image in sample.images)
    assert sample.sha256 == hashlib.sha256("\n".join(hashes).encode()).hexdigest()


def test_published_training_images_that_are_in_the_test_part_are_left_out(published: dict[str, Dataset]) -> None:
    train, test = published["train"], published["test"]
    images, labels = train.images.copy(), train.labels.copy()
    images[:40], labels[:40] = test.images[:40], test.labels[:40]
    published["train"] = replace(train, images=images, labels=labels)
    drawn = draw_samples(SPEC, MNIST, count=1000, held_out=100)
    assert drawn.shared == 40
    assert not set(drawn.calibration.hashes) & set(content_hashes(test.images))


def test_copies_of_an_image_count_once(published: dict[str, Dataset]) -> None:
    train = published["train"]
    images, labels = train.images.copy(), train.labels.copy()
    images[600:], labels[600:] = images[:600], labels[:600]
    published["train"] = replace(train, images=images, labels=labels)
    drawn = draw_samples(SPEC, MNIST, count=300, held_out=300)
    hashes = [*drawn.calibration.hashes, *drawn.held_out.hashes]
    assert len(hashes) == len(set(hashes)) == 600


def test_a_calibration_image_that_is_also_in_the_evaluation_set_stops(small: dict[str, Dataset]) -> None:
    test = small["test"]
    hashes = content_hashes(test.images[:3])
    sample = Sample("mine", "train", test.images[:3], test.labels[:3], tuple(hashes))
    with pytest.raises(DataError, match=r"3 of 3 calibration images are also in the test part of mnist") as caught:
        refuse_evaluation_images(sample, test)
    assert min(hashes)[:12] in str(caught.value)
    refuse_evaluation_images(replace(sample, hashes=("0" * 64,) * 3), test)


def test_a_dataset_with_a_validation_part_holds_that_out(
    published: dict[str, Dataset], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "WITH_VALIDATION", {"mnist"})
    train = published["train"]
    published["validation"] = replace(train, split="validation", images=train.images[1000:], labels=train.labels[1000:])
    published["train"] = part(train, 1000)
    drawn = draw_samples(SPEC, MNIST, count=100)
    assert (drawn.held_out.split, len(drawn.held_out)) == ("validation", 200)


def test_only_characters_the_model_knows(published: dict[str, Dataset]) -> None:
    spec = ModelSpec(labels="71", preprocessing=Preprocessing(), parameters=1)
    drawn = draw_samples(spec, MNIST, count=50, held_out=100)
    assert np.bincount(drawn.calibration.labels).tolist() == [25, 25]
    train = published["train"]
    sevens = set(content_hashes(train.images[train.labels == 7]))
    assert {h for h, y in zip(drawn.calibration.hashes, drawn.calibration.labels, strict=True) if y == 0} <= sevens
    with pytest.raises(DataError, match="mnist shows none of the characters"):
        draw_samples(ModelSpec(labels="ab", preprocessing=Preprocessing(), parameters=1), MNIST)


def test_another_size_is_resized(published: dict[str, Dataset]) -> None:
    spec = ModelSpec(labels="0123456789", preprocessing=Preprocessing(height=20, width=32), parameters=1)
    assert draw_samples(spec, MNIST, count=20, held_out=100).calibration.images.shape == (20, 20, 32)


@pytest.mark.parametrize("count", [9, 1101])
def test_too_few_or_too_many(published: dict[str, Dataset], count: int) -> None:
    with pytest.raises(UsageError, match=r"--images takes 10 \(one a class\) to 1100 for mnist, got"):
        draw_samples(SPEC, MNIST, count=count)


def test_nothing_says_what_to_draw_from() -> None:
    with pytest.raises(UsageError, match="does not say what data it was trained on; name it with --data"):
        draw_samples(SPEC, None)


def write_folder(root: Path, data: Dataset, name: str, per_class: int) -> None:
    for label in range(10):
        folder = root / name / str(label)
        folder.mkdir(parents=True)
        for i in np.flatnonzero(data.labels == label)[:per_class]:
            Image.fromarray(data.images[i]).save(folder / f"{i}.png")


def test_a_folder_with_declared_parts(small: dict[str, Dataset], tmp_path: Path) -> None:
    write_folder(tmp_path / "own", small["train"], "train", 30)
    write_folder(tmp_path / "own", small["test"], "test", 5)
    recipe = {"data": {"name": "folder", "path": str(tmp_path / "own"), "prepare": "as-is"}}
    drawn = draw_samples(SPEC, recipe, count=100)
    assert np.bincount(drawn.calibration.labels).tolist() == [10] * 10
    assert set(drawn.calibration.hashes) <= set(content_hashes(small["train"].images))
    assert draw_samples(SPEC, None, str(tmp_path / "own"), count=100).calibration.split == "train"


def test_a_folder_whose_parts_overlap_is_refused(small: dict[str, Dataset], tmp_path: Path) -> None:
    write_folder(tmp_path / "own", small["train"], "train", 30)
    write_folder(tmp_path / "own", small["train"], "test", 2)
    with pytest.raises(DataError, match=r"20 training image\(s\) of folder:own are also in its test part"):
        draw_samples(SPEC, None, str(tmp_path / "own"), count=100)


def test_a_folder_that_does_not_say_what_is_for_evaluation_is_refused(
    small: dict[str, Dataset], tmp_path: Path
) -> None:
    write_folder(tmp_path, small["train"], "own", 2)
    with pytest.raises(DataError, match="declares no test part, so that it is not known which images"):
        draw_samples(SPEC, None, str(tmp_path / "own"))


def test_what_is_no_data(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("x")
    with pytest.raises(UsageError, match=r"--data takes mnist, .* a folder of images or a CSV file"):
        draw_samples(SPEC, None, str(tmp_path / "x.txt"))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.integers(0, 9))
def test_every_beginning_of_the_order_is_as_even_as_can_be(labels: list[int], seed: int) -> None:
    array = np.asarray(labels)
    order = even_order(array, seed)
    assert sorted(order.tolist()) == list(range(len(labels)))
    totals = np.bincount(array, minlength=5)
    for n in range(1, len(labels) + 1):
        counts = np.bincount(array[order[:n]], minlength=5)
        # A class lags behind another only where it has no more images.
        assert all(counts[i] >= counts.max() - 1 or counts[i] == totals[i] for i in range(5))
