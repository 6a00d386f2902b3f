from pathlib import Path

import pytest
import yaml

from hwr_export.errors import UsageError
from tests.conftest import ROOT, TINY, tiny_recipe
from train.recipe import Recipe, load_recipe
from train.run_directory import recipe_yaml


@pytest.mark.parametrize("path", sorted((ROOT / "train" / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_committed_recipes_are_valid_and_named_after_their_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


@pytest.mark.parametrize("data", [{}, {"name": "folder", "path": "labelled/", "labels": "AB", "prepare": "as-is"}])
def test_the_kept_recipe_is_the_recipe(data: dict) -> None:
    recipe = tiny_recipe(data=data)
    assert Recipe.model_validate(yaml.safe_load(recipe_yaml(recipe))) == recipe


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "epoch: unknown key .valid there: schema, name, model"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1"),
        ({"learning_rate": -1}, "learning_rate: input should be greater than 0"),
        ({"model": {"name": "vgg"}}, "model.name: input should be 'article-cnn', 'edge', 'edge-s'"),
        ({"data": {"validation_fraction": 1}}, "data.validation_fraction"),
        ({"data": {"name": "mnits"}}, "data.name: input should be 'mnist', 'chars62', .*'folder' or 'csv'"),
        ({"data": {"name": "folder"}}, "data: folder needs path"),
        ({"data": {"name": "idx", "path": "raw"}}, "data: idx needs labels, the characters in class order"),
        ({"data": {"path": "raw"}}, "data: path is for idx, folder, csv; mnist is found in the data root"),
        ({"augment": {"blurr": 1}}, "augment.blurr: unknown key .valid there: rotate_deg, .*, blur, noise"),
        ({"fine_tune": {"lr": 1}}, "fine_tune.lr: unknown key .valid there: checkpoint, train_from"),
        ({"data": {"limit": 100, "per_class": 5}}, "data: limit and per_class exclude each other"),
        ({"fine_tune": {"checkpoint": "x", "batch_norm": "off"}}, "fine_tune.batch_norm: input should be 'frozen' or"),
        ({"distil": {"teachers": []}}, "distil.teachers: list should have at least 1 item"),
        ({"data": {"labels": "01"}}, "data: labels is for idx, folder, csv; mnist has its own"),
        ({"data": {"test_fraction": 0.2}}, "data: test_fraction is for .*; mnist has a published test part"),
        ({"data": {"prepare": "as-is"}}, "data: prepare: as-is is for folder, csv"),
        ({"data": {"name": "csv", "path": "a.csv", "prepare": "crop"}}, "prepare: input should be 'glyph' or 'as-is'"),
        ({"data": {"name": "csv", "path": "a.csv", "labels": "AA"}}, "data.labels: .*names 'A' more than once"),
        ({"name": "Digits Edge"}, "name: string should match"),
        ({"schema": 7}, "schema: input should be 1"),
    ],
)
def test_bad_recipes_are_refused_with_what_is_valid(tmp_path: Path, change: dict, message: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(yaml.safe_dump(TINY | change))
    with pytest.raises(UsageError, match=message):
        load_recipe(path)


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\0"])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"r\.yaml is not"):
        load_recipe(path)


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no recipe"):
        load_recipe(tmp_path / "r.yaml")
