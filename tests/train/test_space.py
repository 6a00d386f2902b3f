"""A space is refused before anything trains, with what is valid; what it lets through is a recipe."""

from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.errors import UsageError
from tests.conftest import ROOT, TINY, tiny_recipe
from train.data import split_training_data
from train.recipe import Recipe
from train.space import Space, load_space, searchable, try_ends

SPACES = sorted((ROOT / "train" / "spaces").glob("*.yaml"))
RATE = {"learning_rate": {"low": 0.001, "high": 0.03, "log": True}}
SPACE = {"schema": 1, "name": "tiny-search", "base": TINY, "trials": 4, "parameters": RATE}


def write_space(folder: Path, **changes: object) -> Path:
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(SPACE | changes))
    return path


def space_of(**parameters: dict) -> Space:
    return Space.model_validate(SPACE | {"parameters": {k.replace("__", "."): v for k, v in parameters.items()}})


@pytest.mark.parametrize("path", SPACES, ids=lambda p: p.stem)
def test_committed_spaces_are_valid_named_after_their_file_and_hold_their_base(path: Path) -> None:
    space = load_space(path)
    assert space.name == path.stem
    assert space.stored_base() is not None


def test_the_base_is_a_path_beside_the_space_or_inside_it(tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(TINY))
    beside = load_space(write_space(tmp_path, base="tiny.yaml"))
    inside = load_space(write_space(tmp_path))
    assert beside == inside
    assert beside.base == tiny_recipe()
    (tmp_path / "kept.yaml").write_bytes(beside.document())
    kept = load_space(tmp_path / "kept.yaml")
    assert kept.sha256 == beside.sha256
    assert beside.sha256 == load_space(write_space(tmp_path, trials=9)).sha256
    assert beside.sha256 != load_space(write_space(tmp_path, seed=9)).sha256


def test_the_keys_that_can_be_searched_are_those_of_a_recipe() -> None:
    known = searchable()
    assert {"learning_rate", "augment.elastic_px", "optimizer", "batch_size", "model.name", "distil.weight"} <= set(
        known
    )
    assert not {key for key in known if key.split(".")[0] in ("seed", "name", "schema", "data")}


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"learning_rat": {"low": 1, "high": 2}},
            r"parameters.learning_rat: no key that can be searched; valid: model.na",
        ),
        ({"augment": {"choices": [1, 2]}}, "parameters.augment: no key"),
        ({"data.limit": {"low": 100, "high": 200}}, r"data.limit: no key .*the same for all trials"),
        ({"model.config.": {"choices": [1, 2]}}, "no key"),
        (
            {"learning_rate": {"low": 0, "high": 0.1}},
            "refuses the low 0: learning_rate: input should be greater than 0",
        ),
        (
            {"augment.blur": {"low": 0, "high": 2}},
            "refuses the high 2: augment.blur: input should be less than or equal",
        ),
        (
            {"optimizer": {"choices": ["adamw", "lion"]}},
            "refuses the choice 'lion': optimizer: input should be 'adamw'",
        ),
        ({"optimizer": {"low": 0, "high": 1}}, "takes no numbers between two ends; give choices"),
        ({"deterministic": {"low": 0, "high": 1}}, "takes no numbers between two ends; give choices"),
        ({"distil.weight": {"low": 0.1, "high": 0.9}}, "distil.teachers: field required"),
        ({"learning_rate": {"low": 0.1, "high": 0.1}}, "low 0.1 is not below high 0.1"),
        ({"weight_decay": {"low": 0, "high": 0.1, "log": True}}, "log needs a low above 0 and no step"),
        ({"weight_decay": {"low": 0.1, "high": 0.3, "log": True, "step": 0.1}}, "log needs a low above 0 and no step"),
        (
            {"weight_decay": {"low": 0.0, "high": 0.5, "step": 0.2}},
            "high 0.5 is not a whole number of steps of 0.2 above",
        ),
        ({"weight_decay": {"low": 0.0, "high": 0.5, "step": -0.1}}, "not a whole number of steps"),
        ({"batch_size": {"low": 16, "high": 20.5}}, "takes whole numbers, not 16 to 20.5"),
        ({"batch_size": {"low": 16, "high": 32, "step": 0.5}}, "takes whole numbers, not 16 to 32 in steps of 0.5"),
        ({"weight_decay": {"low": 0.1}}, "give both low and high, or choices"),
        ({"weight_decay": {}}, "give both low and high, or choices"),
        (
            {"weight_decay": {"low": 0.1, "choices": [0.1, 0.2]}},
            "give either low and high .with log or step., or choices",
        ),
        ({"weight_decay": {"choices": [0.1, 0.1]}}, "two or more different values, not .0.1, 0.1."),
        ({"weight_decay": {"choices": [0.1]}}, "two or more different values"),
        ({"weight_decay": {"low": float("nan"), "high": 1.0}}, "weight_decay.low.*finite number"),
        ({"weight_decay": {"lo": 1}}, "parameters.weight_decay.lo: unknown key"),
        ({}, "parameters: dictionary should have at least 1 item"),
    ],
)
def test_bad_parameters_are_refused_with_what_is_valid(tmp_path: Path, parameters: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_space(write_space(tmp_path, parameters=parameters))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema": 2}, "space.yaml is not a valid space: schema: input should be 1"),
        ({"trial": 2}, "trial: unknown key .valid there: schema, name, base, seed, trials, pruner, parameters"),
        ({"pruner": {"kind": "random"}}, "pruner.kind: input should be 'median', 'hyperband' or 'none'"),
        ({"base": "nowhere.yaml"}, "there is no recipe .*nowhere.yaml"),
        ({"base": TINY | {"epochs": 0}}, "base.epochs: input should be greater"),
    ],
)
def test_bad_spaces_are_refused_with_what_is_valid(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_space(write_space(tmp_path, **changes))


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\0"])
def test_what_is_no_space_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UsageError, match=r"s\.yaml is not"):
        load_space(tmp_path / "s.yaml")
    with pytest.raises(UsageError, match="there is no space"):
        load_space(tmp_path / "t.yaml")


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        (
            {"model__config__dropuot": {"low": 0.1, "high": 0.5}},
            "with the low 0.1: architecture 'edge' does not take the",
        ),
        (
            {"model__config__dropout": {"low": 0.1, "high": 1.5}},
            "with the high 1.5: architecture 'edge' does not take the",
        ),
        (
            {"model__config__channels": {"choices": [[8, 8, 8, 8], [8, 8, -8, 8]]}},
            r"choice \[8, 8, -8, 8\]: RuntimeError",
        ),
        (
            {"model__name": {"choices": ["edge", "article-cnn"]}},
            "with the choice 'article-cnn': architecture 'article-cnn'",
        ),
        ({"batch_size": {"low": 16, "high": 4096}}, "high 4096: batch_size 4096 is larger than the training split"),
    ],
)
def test_every_end_must_make_a_network(parameters: dict, message: str) -> None:
    space = space_of(**parameters)
    with pytest.raises(UsageError, match=message):
        try_ends(space, split_training_data(space.base.data, None))


def test_whole_numbers_are_told_from_others() -> None:
    space = space_of(
        batch_size={"low": 16.0, "high": 32.0},
        learning_rate={"low": 0.1, "high": 1},
        augment__blur={"low": 0, "high": 1},
        early_stop_epochs={"low": 1, "high": 3},
        model__config__depth={"low": 1, "high": 3},
        model__config__dropout={"low": 0, "high": 0.5},
    )
    whole = {"batch_size", "early_stop_epochs", "model.config.depth"}
    assert {key for key in space.parameters if space.is_integer(key)} == whole


@given(
    st.lists(st.lists(st.integers(1, 99), max_size=3) | st.integers() | st.text(max_size=3), min_size=2, unique_by=str)
)
def test_choices_come_back_from_what_a_study_stores(choices: list) -> None:
    space = space_of(model__config__x={"choices": choices})
    parameter = space.parameters["model.config.x"]
    for choice, token in zip(choices, parameter.tokens, strict=True):
        assert isinstance(token, int | str)
        if parameter.tokens.count(token) == 1:
            assert space.values({"model.config.x": token}) == {"model.config.x": choice}


@given(st.data())
def test_everything_in_a_committed_space_is_a_recipe(data: st.DataObject) -> None:
    space = load_space(SPACES[0])
    values = {
        key: data.draw(st.floats(p.low, p.high) if p.choices is None else st.sampled_from(p.choices))
        for key, p in space.parameters.items()
    }
    document = space.recipe(values).model_dump(by_alias=True)
    for key, value in values.items():
        level = document
        for name in key.split("."):
            level = level[name]
        assert level == value
    assert Recipe.model_validate(document).name == space.base.name


def test_the_base_is_tried_first_only_where_the_space_holds_it() -> None:
    held = {"learning_rate": {"low": 0.001, "high": 0.03}, "optimizer": {"choices": ["sgd", "adamw"]}}
    channels = {"model__config__channels": {"choices": [[8, 8, 8, 8], [8, 8, 12, 16]]}}
    assert space_of(**held, **channels).stored_base() == {
        "learning_rate": 0.01,
        "optimizer": "adamw",
        "model.config.channels": "[8, 8, 12, 16]",
    }
    assert space_of(batch_size={"low": 16, "high": 48, "step": 16}).stored_base() == {"batch_size": 32}
    assert space_of(batch_size={"low": 16, "high": 40, "step": 12}).stored_base() is None
    assert space_of(learning_rate={"low": 0.02, "high": 0.03}).stored_base() is None
    assert space_of(optimizer={"choices": ["sgd", "adam"]}).stored_base() is None
    assert space_of(model__config__dropout={"low": 0.0, "high": 0.3}).stored_base() is None
    assert space_of(distil__weight={"low": 0.1, "high": 0.3}).stored_base() is None
