from pathlib import Path

import pytest
import yaml

from hwr_export.errors import UsageError
from tests.conftest import ROOT, TINY, tiny_recipe
from train.fit import recipe_yaml
from train.recipe import Recipe, load_recipe


@pytest.mark.parametrize("path", sorted((ROOT / "train" / "recipes").glob("*.yaml")), ids=lambda p: p.stem)
def test_committed_recipes_are_valid_and_named_after_their_file(path: Path) -> None:
    assert load_recipe(path).name == path.stem


def test_the_kept_recipe_is_the_recipe() -> None:
    assert Recipe.model_validate(yaml.safe_load(recipe_yaml(tiny_recipe()))) == tiny_recipe()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epoch": 3}, "epoch: unknown key .valid at the top: schema, name, model"),
        ({"epochs": 0}, "epochs: input should be greater than or equal to 1"),
        ({"learning_rate": -1}, "learning_rate: input should be greater than 0"),
        ({"model": {"name": "vgg"}}, "model.name: input should be 'article-cnn', 'edge', 'edge-s'"),
        ({"data": {"validation_fraction": 1}}, "data.validation_fraction"),
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
