"""Recipe -> three parts that share nothing, described by their content."""

import csv
from dataclasses import replace
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from hwr_export.datasets import LOADERS, Dataset, content_sha256, load_mnist
from hwr_export.errors import DataError
from tests.datasets.test_idx import write_pair
from train import data as module
from train.data import Split, load_test, normalisation, split_training_data
from train.recipe import OWN, DataRecipe
from train.splits import contents


def seeded(recipe: DataRecipe, seed: int) -> DataRecipe:
    return recipe.model_copy(update={"split_seed": seed})


def use(monkeypatch: pytest.MonkeyPatch, **changes: object) -> None:
    """Let MNIST's training part be another."""
    changed = replace(load_mnist("train"), **changes)
    test = load_mnist("test")
    monkeypatch.setattr(module, "load_dataset", lambda name, part, root: changed if part == "train" else test)


def check(split: Split, recipe: DataRecipe, seed: int, root: Path | None = None) -> Dataset:
    """Check what holds for every split; return the test part."""
    test = load_test(seeded(recipe, seed), root)
    images = {
        "train": split.data.images[split.train],
        "validation": split.data.images[split.validation],
        "test": test.images,
    }
    labels = {"train": split.data.labels[split.train], "validation": split.data.labels[split.validation]}
    labels["test"] = test.labels
    for part, pixels in images.items():
        assert split.description[part] == {"n": len(pixels), "sha256": content_sha256(pixels, labels[part])}
    kinds = [set(contents(pixels)) for pixels in images.values()]
    assert not kinds[0] & kinds[1]
    assert not kinds[0] & kinds[2]
    assert not kinds[1] & kinds[2]
    assert not kinds[2] & set(contents(split.data.images))
    assert test.split == "test"
    assert test.label_set == split.data.label_set
    assert split_training_data(seeded(recipe, seed), root).description == split.description
    return test


# -- published datasets ----------------------------------------------------------------------------------------------


def test_every_dataset_has_a_recipe_and_every_recipe_a_source() -> None:
    assert set(get_args(DataRecipe.model_fields["name"].annotation)) == {*LOADERS, *OWN}


@pytest.mark.parametrize("by_writer", [True, False])
def test_splits_are_disjoint_complete_and_seeded(monkeypatch: pytest.MonkeyPatch, by_writer: bool) -> None:
    writers = np.repeat(np.arange(600), 100).astype(np.int32) if by_writer else None
    use(monkeypatch, writers=writers)
    split = split_training_data(seeded(DataRecipe(), 3), None)
    assert sorted([*split.train, *split.validation]) == list(range(60_000))
    assert 0.09 < len(split.validation) / 60_000 < 0.12
    assert split.description["split"] == ("by writer" if by_writer else "stratified by class")
    assert split.description["test_split"] == "as published with the dataset"
    assert split.description["overlap_removed"] == {"train": 0}
    if by_writer:
        assert not set(writers[split.train]) & set(writers[split.validation])
    check(split, DataRecipe(), 3)
    other = split_training_data(seeded(DataRecipe(), 4), None)
    assert other.description["train"]["sha256"] != split.description["train"]["sha256"]
    assert other.description["test"] == split.description["test"]


def test_every_class_is_stratified_without_writers(monkeypatch: pytest.MonkeyPatch) -> None:
    use(monkeypatch, writers=None)
    split = split_training_data(DataRecipe(validation_fraction=0.2), None)
    share = np.bincount(split.data.labels[split.validation]) / np.bincount(split.data.labels)
    assert share == pytest.approx(np.full(10, 0.2), abs=1e-3)


def test_the_limit_is_the_first_of_a_published_set() -> None:
    split = split_training_data(DataRecipe(limit=500), None)
    assert sorted([*split.train, *split.validation]) == list(range(500))


def test_a_class_missing_from_one_side_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = load_mnist("train").labels
    use(monkeypatch, writers=(labels == 3).astype(np.int32))
    with pytest.raises(DataError, match="part of mnist has no image of"):
        split_training_data(DataRecipe(), None)


def test_normalisation_is_mean_and_deviation() -> None:
    images = load_mnist("train").images[:500]
    mean, std = normalisation(images)
    assert mean == pytest.approx((images / 255).mean(), abs=1e-6)
    assert std == pytest.approx((images / 255).std(), abs=1e-6)
    assert normalisation(np.zeros((2, 28, 28), np.uint8))[1] > 0


def test_a_datasets_own_validation_part_is_used_and_overlap_leaves_training(monkeypatch: pytest.MonkeyPatch) -> None:
    mnist = replace(load_mnist("train"), writers=None)
    # Five images of the test part are in the training part too, three of validation, and two of test in validation.
    indices = {
        "train": [*range(2000), *range(3000, 3005), *range(2000, 2003)],
        "validation": [*range(2000, 2600), 3000, 3010],
        "test": [*range(3000, 3400)],
    }

    def load(name: str, part: str, root: object) -> Dataset:
        return replace(mnist, images=mnist.images[indices[part]], labels=mnist.labels[indices[part]], split=part)

    monkeypatch.setattr(module, "load_dataset", load)
    recipe = DataRecipe(name="chars62", limit=1500)
    split = split_training_data(recipe, None)
    assert (len(split.train), len(split.validation)) == (1500, 600)
    np.testing.assert_array_equal(split.data.images[split.validation], mnist.images[2000:2600])
    assert split.description["split"] == split.description["test_split"] == "as published with the dataset"
    assert split.description["overlap_removed"] == {"train": 8, "validation": 2}
    check(split, recipe, 0)
    assert len(split_training_data(DataRecipe(name="chars62"), None).train) == 2000


def test_identical_images_stay_together(monkeypatch: pytest.MonkeyPatch) -> None:
    images = load_mnist("train").images[:2000].copy()
    images[1] = images[0]  # of two writers
    changes = {"images": images, "labels": load_mnist("train").labels[:2000]}
    for writers in (None, (np.arange(2000) % 20).astype(np.int32)):
        use(monkeypatch, **changes, writers=writers)
        for seed in range(8):
            split = split_training_data(seeded(DataRecipe(validation_fraction=0.5), seed), None)
            assert (0 in split.train) == (1 in split.train)
            assert len(split.train) + len(split.validation) == 2000


# -- a user's own ----------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path: Path, mnist_test: Dataset) -> list[dict[str, str]]:
    """240 digits of 24 writers as rows of a CSV file, the images beside it."""
    order = np.concatenate([np.flatnonzero(mnist_test.labels == d)[:24] for d in range(10)])
    rows = []
    for k, i in enumerate(order):
        name = f"{k:03}.png"
        Image.fromarray(mnist_test.images[i]).save(tmp_path / name)
        rows.append({"path": name, "label": str(mnist_test.labels[i]), "writer": f"w{k % 24}"})
    return rows


def table(folder: Path, rows: list[dict[str, str]], *columns: str) -> str:
    path = folder / "labels.csv"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ("path", "label", *columns), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def test_a_folder_is_split_in_three_by_class(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    for row in rows:
        (tmp_path / "data" / "mine" / row["label"]).mkdir(parents=True, exist_ok=True)
        (tmp_path / row["path"]).rename(tmp_path / "data" / "mine" / row["label"] / row["path"])
    recipe = DataRecipe(name="folder", path="mine", validation_fraction=0.25, test_fraction=0.25)
    split = split_training_data(recipe, tmp_path / "data")
    assert split.description["split"] == split.description["test_split"] == "stratified by class"
    test = check(split, recipe, 0, tmp_path / "data")
    for labels, each in ((test.labels, 6), (split.data.labels[split.validation], 4), (split.data.labels, 18)):
        assert np.bincount(labels, minlength=10) == pytest.approx(np.full(10, each), abs=1)
    assert test.sha256 == split.description["test"]["sha256"]
    assert split.description["name"] == "folder:mine"
    assert load_test(seeded(recipe, 1), tmp_path / "data").sha256 != test.sha256
    less = recipe.model_copy(update={"limit": 100, "validation_fraction": 0.5})
    small = split_training_data(less, tmp_path / "data")
    assert len(small.train) + len(small.validation) == 100
    assert set(small.data.labels[small.train].tolist()) == set(range(10))  # though the folder is in order of class
    assert small.description["test"] == split.description["test"]


def test_crops_can_be_taken_as_they_are(tmp_path: Path, rows: list[dict[str, str]], mnist_test: Dataset) -> None:
    recipe = DataRecipe(name="csv", path=table(tmp_path, rows), prepare="as-is")
    split = split_training_data(recipe, None)
    test = check(split, recipe, 0)
    assert {*contents(test.images), *contents(split.data.images)} < set(contents(mnist_test.images))


def test_a_csv_with_writers_is_split_in_three_by_writer(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    recipe = DataRecipe(name="csv", path=table(tmp_path, rows, "writer"), validation_fraction=0.2, test_fraction=0.2)
    for seed in range(3):
        split = split_training_data(seeded(recipe, seed), None)
        assert split.description["split"] == split.description["test_split"] == "by writer"
        test = check(split, recipe, seed)
        writers = [set(test.writers), set(split.data.writers[split.train]), set(split.data.writers[split.validation])]
        assert sum(map(len, writers)) == len(set.union(*writers)) == 24
        assert len(test) + len(split.train) + len(split.validation) == 240


def test_copies_in_a_users_data_land_on_one_side(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    recipe = DataRecipe(name="csv", path=table(tmp_path, rows * 2), test_fraction=0.3)
    split = split_training_data(recipe, None)
    test = check(split, recipe, 0)
    assert len(test) + len(split.data) == 480
    assert len(set(contents(test.images))) == len(test) / 2


def test_declared_parts_are_kept(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    for k, row in enumerate(rows):
        row["split"] = ("train", "train", "validation", "test")[k % 4]
    recipe = DataRecipe(name="csv", path=table(tmp_path, rows, "split", "writer"))
    split = split_training_data(recipe, None)
    assert split.description["split"] == split.description["test_split"] == "as declared"
    assert (len(check(split, recipe, 0)), len(split.train), len(split.validation)) == (60, 120, 60)
    assert len(split.data.writers) == 180

    for row in rows:  # validation is not declared: held out of what is declared as training
        row["split"] = row["split"].replace("validation", "train")
    recipe = DataRecipe(name="csv", path=table(tmp_path, rows, "split"))
    split = split_training_data(recipe, None)
    assert (split.description["split"], split.description["test_split"]) == ("stratified by class", "as declared")
    assert (len(check(split, recipe, 0)), len(split.data)) == (60, 180)


def test_declared_parts_that_overlap_are_refused_with_counts(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    for k, row in enumerate(rows):
        row["split"] = ("train", "train", "validation", "test")[k % 4]
    copies = [rows[0] | {"split": "test"}, rows[1] | {"split": "test"}, rows[3] | {"split": "validation"}]
    recipe = DataRecipe(name="csv", path=table(tmp_path, rows + copies, "split"))
    message = (
        r"declared parts of csv:labels.csv overlap: 2 image.s. are in both the train and the test part; "
        r"1 image.s. are in both the validation and the test part; each belongs in one part only"
    )
    for load in (split_training_data, load_test):
        with pytest.raises(DataError, match=message):
            load(recipe, None)

    rows[3]["writer"] = "w0"
    recipe = DataRecipe(name="csv", path=table(tmp_path, rows, "split", "writer"))
    with pytest.raises(DataError, match=r"overlap: 1 writer.s. are in both the train and the test part"):
        split_training_data(recipe, None)


def test_a_directory_of_idx_files_is_split(tmp_path: Path, mnist_test: Dataset) -> None:
    write_pair(tmp_path / "raw", "train", mnist_test.images[:400], mnist_test.labels[:400])
    np.save(tmp_path / "raw" / "writers-train.npy", np.arange(400) % 40)
    recipe = DataRecipe(name="idx", path=str(tmp_path / "raw"), labels="0123456789")
    split = split_training_data(recipe, None)
    assert split.description["test_split"] == "by writer"
    assert len(check(split, recipe, 0)) == 40

    write_pair(tmp_path / "raw", "t10k", mnist_test.images[390:450], mnist_test.labels[390:450])
    with pytest.raises(DataError, match=r"declared parts of idx:raw overlap: 10 image.s. are in both"):
        split_training_data(recipe, None)
    write_pair(tmp_path / "raw", "t10k", mnist_test.images[400:450], mnist_test.labels[400:450])
    split = split_training_data(recipe, None)
    np.testing.assert_array_equal(check(split, recipe, 0).images, mnist_test.images[400:450])


def test_too_little_data_is_refused(tmp_path: Path, rows: list[dict[str, str]]) -> None:
    one_nine = rows[: 9 * 24 + 1]
    with pytest.raises(DataError, match=r"the validation part of csv:labels.csv has no image of 9; use more data"):
        split_training_data(DataRecipe(name="csv", path=table(tmp_path, one_nine)), None)
    with pytest.raises(DataError, match=r"the training part of csv:labels.csv has no image of x"):
        split_training_data(DataRecipe(name="csv", path=table(tmp_path, rows), labels="0123456789x"), None)
    for row in rows:
        row["split"] = "test"
    with pytest.raises(DataError, match="declares test but no train part to learn from"):
        split_training_data(DataRecipe(name="csv", path=table(tmp_path, rows, "split")), None)


def test_paths_that_lead_nowhere_or_to_the_other_kind_are_refused(
    tmp_path: Path, rows: list[dict[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"there is no mine/labels.csv .looked for mine/labels.csv, .*/elsewhere/mine"):
        split_training_data(DataRecipe(name="csv", path="mine/labels.csv"), tmp_path / "elsewhere")
    table(tmp_path, rows)
    with pytest.raises(DataError, match=r"labels.csv is a file; `name: folder` takes a folder of images, `name: csv`"):
        split_training_data(DataRecipe(name="folder", path="labels.csv"), None)
    with pytest.raises(DataError, match="is a folder"):
        split_training_data(DataRecipe(name="csv", path="."), None)


# -- parts of a source ------------------------------------------------------------------------------------------------


def test_some_characters_of_a_source_are_renumbered_in_the_order_given() -> None:
    whole, some = (split_training_data(DataRecipe(name="chars62", classes=c), None) for c in (None, "Ba7"))
    assert some.data.label_set == "Ba7"
    for i, character in enumerate("Ba7"):
        of_class = whole.data.labels[whole.train] == whole.data.label_set.index(character)
        ours = some.data.labels[some.train] == i
        assert np.array_equal(whole.data.images[whole.train][of_class], some.data.images[some.train][ours])
    assert load_test(DataRecipe(name="chars62", classes="Ba7"), None).label_set == "Ba7"
    with pytest.raises(DataError, match=r"data.classes: mnist has no 'x'; its characters are '0123456789'"):
        split_training_data(DataRecipe(classes="1x"), None)


def test_few_labels_a_class_include_validation_and_are_a_seeded_draw() -> None:
    recipe = DataRecipe(per_class=10, validation_fraction=0.2)
    one, again, other = (split_training_data(seeded(recipe, seed), None) for seed in (0, 0, 1))
    used = np.concatenate([one.train, one.validation])
    assert np.array_equal(np.bincount(one.data.labels[used]), np.full(10, 10))
    assert one.description == again.description != other.description
