"""`drift-reference` and `drift`: from a checkpoint and files to an exit code."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hwr_export.checkpoint import load_checkpoint, save_checkpoint
from hwr_export.datasets import Dataset
from tests.conftest import one_json
from train.__main__ import main
from train.data import split_training_data
from train.recipe import DataRecipe


def run(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def beside(run_dir: Path, folder: Path, validation_fraction: float) -> Path:
    """The tiny model, as if it had been trained beside that share of MNIST."""
    folder.mkdir()
    loaded = load_checkpoint(run_dir)
    recipe = DataRecipe(validation_fraction=validation_fraction)
    split = split_training_data(recipe, None)
    changes = {"recipe": {**loaded.info.recipe, "data": recipe.model_dump()}, "data": split.description}
    save_checkpoint(folder, loaded.info.model_copy(update=changes), loaded.weights)
    return folder


@pytest.fixture(scope="module")
def checkpoint(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Validated by about 27 writers."""
    return beside(run_dir, tmp_path_factory.mktemp("drift") / "run", 0.05)


@pytest.fixture(scope="module")
def reference(checkpoint: Path) -> Path:
    path = checkpoint.parent / "drift.npz"
    result = run("drift-reference", checkpoint, "-o", path)
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(path)
    return path


def folder_of(images: np.ndarray, folder: Path) -> Path:
    folder.mkdir()
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i}.png")
    (folder / "notes.txt").write_text("not an image, and not taken for one")
    return folder


def test_more_of_the_same_is_no_drift(reference: Path, checkpoint: Path, mnist_test: Dataset, tmp_path: Path) -> None:
    folder = folder_of(mnist_test.images[:120], tmp_path / "in")
    document = one_json(run("drift", reference, folder, "--model", checkpoint, "--json").stdout)
    assert (document["alarm"], document["n"], document["writers"], document["blank"]) == (False, 120, 1, 0)
    assert document["reference"]["by_writer"]
    assert document["reference"]["checkpoint"] == "tiny"
    assert [s["name"] for s in document["statistics"]][-2:] == ["confidence", "entropy"]
    result = run("drift", reference, folder, "--model", checkpoint)
    assert result.exit_code == 0
    assert "No drift found; judged as 120 images by 1 writer(s)" in result.stdout


def test_polarity_and_paper_are_no_drift(reference: Path, mnist_test: Dataset, tmp_path: Path) -> None:
    """What the reader's own normalisation undoes never reaches the model."""
    images = mnist_test.images[:60]
    padded = np.pad(255 - images, ((0, 0), (9, 3), (2, 14)), constant_values=255)
    plain, other = folder_of(images, tmp_path / "a"), folder_of(padded, tmp_path / "b")
    documents = [one_json(run("drift", reference, folder, "--json").stdout) for folder in (plain, other)]
    for plainly, otherwise in zip(*(d["statistics"] for d in documents), strict=True):
        assert plainly["shift"] == pytest.approx(otherwise["shift"], abs=0.02)


def test_broken_strokes_are_an_alarm(reference: Path, mnist_test: Dataset, tmp_path: Path) -> None:
    broken = mnist_test.images[:120].copy()
    broken[:, ::4] = 0
    blank = np.zeros((2, 28, 28), np.uint8)
    folder = folder_of(np.concatenate([broken, blank]), tmp_path / "in")
    result = run("drift", reference, folder, "--writers", 12)
    assert result.exit_code == 1
    assert "ALARM" in result.stdout
    assert "Drift: " in result.stdout
    assert "parts minus holes" in result.stdout.splitlines()[-1]
    assert "2 without ink left out" in result.stdout
    assert run("drift", reference, folder, "--writers", 12, "--json").exit_code == 1


def test_a_release_of_the_model_will_do(reference: Path, release_dir: Path, mnist_test: Dataset, tmp_path) -> None:
    folder = folder_of(mnist_test.images[:40], tmp_path / "in")
    result = run("drift", reference, folder, "--model", release_dir, "--json")
    assert result.exit_code == 0, result.output
    assert len(one_json(result.stdout)["statistics"]) == 12


def test_the_model_must_be_the_reference_s(reference: Path, checkpoint: Path, digit_png: Path, tmp_path: Path) -> None:
    from hwr_export.checkpoint import weights_bytes, weights_file
    from hwr_export.models import build_model

    loaded = load_checkpoint(checkpoint)
    data = weights_bytes(build_model("edge", 10, {"channels": [8, 8, 12, 16]}))
    other = tmp_path / "other"
    other.mkdir()
    save_checkpoint(other, loaded.info.model_copy(update={"weights": weights_file(data)}), data)
    result = run("drift", reference, digit_png, "--model", other)
    assert result.exit_code == 2
    assert "has other weights" in result.stderr


def test_a_checkpoint_of_few_writers_is_refused(run_dir: Path, tmp_path: Path) -> None:
    few = beside(run_dir, tmp_path / "few", 0.01)
    result = run("drift-reference", few, "-o", tmp_path / "drift.npz")
    assert result.exit_code == 2
    assert "writer(s), and at least 20 are needed" in result.stderr
    assert list(tmp_path.iterdir()) == [few]


def test_other_data_than_it_was_trained_on_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    recipe = loaded.info.recipe | {"data": loaded.info.recipe["data"] | {"split_seed": 99}}
    save_checkpoint(tmp_path, loaded.info.model_copy(update={"recipe": recipe}), loaded.weights)
    result = run("drift-reference", tmp_path, "-o", tmp_path / "drift.npz")
    assert result.exit_code == 2
    assert "is not the one that tiny was trained beside" in result.stderr


def test_a_checkpoint_that_fit_did_not_make_is_refused(checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    save_checkpoint(tmp_path, loaded.info.model_copy(update={"recipe": None}), loaded.weights)
    result = run("drift-reference", tmp_path, "-o", tmp_path / "drift.npz")
    assert result.exit_code == 2
    assert "does not say what it was trained on" in result.stderr


def test_bad_input_is_one_sentence(reference: Path, digit_png: Path, tmp_path: Path) -> None:
    for arguments, message in (
        ((reference, digit_png), "1 image(s) with ink say nothing about a drift; give at least 20"),
        ((reference, tmp_path / "nowhere.png"), "there is no image"),
        ((tmp_path / "nowhere.npz", digit_png), "there is no drift reference"),
        ((digit_png, digit_png), "cannot be read as a drift reference"),
    ):
        result = run("drift", *arguments)
        assert result.exit_code == 2, result.output
        assert message in result.stderr
        assert result.stdout == ""
