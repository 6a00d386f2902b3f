from dataclasses import replace

import numpy as np
import pytest

from hwr_export.datasets import load_mnist
from hwr_export.errors import DataError
from train import data as module
from train.data import normalisation, split_training_data
from train.recipe import DataRecipe


def use(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    changed = replace(load_mnist("train"), **changes)
    monkeypatch.setattr(module, "load_dataset", lambda *_: changed)


@pytest.mark.parametrize("by_writer", [True, False])
def test_splits_are_disjoint_complete_and_seeded(monkeypatch: pytest.MonkeyPatch, by_writer: bool) -> None:
    writers = np.repeat(np.arange(600), 100).astype(np.int32) if by_writer else None
    use(monkeypatch, writers=writers)
    split = split_training_data(DataRecipe(), 3, None)
    assert sorted([*split.train, *split.validation]) == list(range(60_000))
    assert 0.09 < len(split.validation) / 60_000 < 0.12
    assert split.description["split"] == ("by writer" if by_writer else "stratified by class")
    if by_writer:
        assert not set(writers[split.train]) & set(writers[split.validation])
    again, other = (split_training_data(DataRecipe(), seed, None) for seed in (3, 4))
    assert again.description == split.description
    assert other.description["train"]["sha256"] != split.description["train"]["sha256"]


def test_every_class_is_stratified_without_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, writers=None)
    split = split_training_data(DataRecipe(validation_fraction=0.2), 0, None)
    share = np.bincount(split.data.labels[split.validation]) / np.bincount(split.data.labels)
    assert share == pytest.approx(np.full(10, 0.2), abs=1e-3)


def test_a_class_missing_from_one_side_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = load_mnist("train").labels
    use(monkeypatch, writers=(labels == 3).astype(np.int32))
    with pytest.raises(DataError, match="has no image of"):
        split_training_data(DataRecipe(), 0, None)


def test_normalisation_is_mean_and_deviation() -> None:
    images = load_mnist("train").images[:500]
    mean, std = normalisation(images)
    assert mean == pytest.approx((images / 255).mean(), abs=1e-6)
    assert std == pytest.approx((images / 255).std(), abs=1e-6)
    assert normalisation(np.zeros((2, 28, 28), np.uint8))[1] > 0


def test_a_datasets_own_validation_part_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    train = load_mnist("train")
    parts = {"train": slice(0, 2000), "validation": slice(2000, 2600)}

    def load(name: str, split: str, root: object):
        return replace(train, images=train.images[parts[split]], labels=train.labels[parts[split]], writers=None)

    monkeypatch.setattr(module, "load_dataset", load)
    split = split_training_data(DataRecipe(name="chars62", limit=1500), 0, None)
    assert (len(split.train), len(split.validation)) == (1500, 600)
    np.testing.assert_array_equal(split.data.images[split.validation], train.images[2000:2600])
    assert split.description["split"] == "as published with the dataset"


def test_an_image_on_both_sides_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_mnist("train").images.copy()
    images[1] = images[0]
    writers = (np.arange(60_000) % 2 + 2 * (np.arange(60_000) // 6000)).astype(np.int32)
    use(monkeypatch, images=images, writers=writers)
    seeds = [s for s in range(20) if _raises_overlap(s)]
    assert seeds, "no seed put the two on different sides"


def _raises_overlap(seed: int) -> bool:
    try:
        split_training_data(DataRecipe(validation_fraction=0.5), seed, None)
    except DataError as err:
        return "1 image(s) of mnist are in both the training and the validation part" in str(err)
    return False
