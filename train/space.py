"""SPACE.yaml -> a base recipe and the values that its keys may take.

Every key, both ends of every range and every choice have been through the recipe's own validation when a space is
loaded, and through the making of the network after `try_ends`. A trial's recipe is the base with some keys replaced.
"""

import json
import types
import typing
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from pydantic import Field, FiniteFloat, ValidationError

from hwr_export.errors import HwrError, UsageError
from hwr_export.files import sha256_bytes
from hwr_export.spec import Strict
from train.data import Split
from train.distil import Teachers
from train.recipe import Recipe, keys, load_recipe, load_yaml, problems
from train.state import new_state

FREE = "model.config."
# The same for all trials, or their losses could not be compared.
FIXED = ("schema", "name", "seed", "data")


class Pruner(Strict):
    """When a trial is given up between two epochs."""

    kind: Literal["median", "hyperband", "none"] = "median"
    startup_trials: int = Field(5, ge=1, description="median: so many trials are completed before any is given up")
    warmup_epochs: int = Field(1, ge=0, description="first epochs in which no trial is given up")
    reduction_factor: int = Field(3, ge=2, description="hyperband: one of so many trials goes on at each rung")


class Parameter(Strict):
    """Values of one key: between `low` and `high`, or one of `choices`."""

    low: int | FiniteFloat | None = None
    high: int | FiniteFloat | None = None
    log: bool = Field(False, description="search the order of magnitude")
    step: int | FiniteFloat | None = None
    choices: list[Any] | None = None

    @property
    def tokens(self) -> list[Any]:
        """The choices as a study stores them: lists and dictionaries as JSON."""
        return [json.dumps(c) if isinstance(c, list | dict) else c for c in self.choices or []]

    def ends(self) -> Iterator[tuple[str, Any]]:
        """Yield what has to be valid for everything between to be, named."""
        if self.choices is None:
            yield "low", self.low
            yield "high", self.high
        else:
            yield from (("choice", choice) for choice in self.choices)


class Space(Strict):
    """Where a search looks, from where, and how long."""

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    base: Recipe
    seed: int = Field(0, ge=0)
    trials: int = Field(30, ge=1)
    pruner: Pruner = Pruner()
    parameters: dict[str, Parameter] = Field(min_length=1)

    def document(self) -> bytes:
        """Return what decides a study: the space with its base recipe inside, without the number of trials."""
        return yaml.safe_dump(self.model_dump(by_alias=True, exclude={"trials"}), sort_keys=False).encode()

    @property
    def sha256(self) -> str:
        return sha256_bytes(self.document())

    def is_integer(self, key: str) -> bool:
        """Whether a range takes whole numbers alone: as the recipe says, or as both ends of a network's setting."""
        if key.startswith(FREE):
            return all(isinstance(end, int) for _, end in self.parameters[key].ends())
        return int in searchable()[key]

    def values(self, stored: dict[str, Any]) -> dict[str, Any]:
        """Return the values of keys from what a study stores; a kill may have left it a part of them."""
        found = {}
        for key, parameter in self.parameters.items():
            if key in stored:
                value = stored[key]
                found[key] = value if parameter.choices is None else parameter.choices[parameter.tokens.index(value)]
        return found

    def recipe(self, values: dict[str, Any]) -> Recipe:
        """Return the base recipe with some keys replaced.

        Raises:
            ValidationError: the recipe refuses a value.
        """
        document = self.base.model_dump(by_alias=True)
        for key, value in values.items():
            *path, last = key.split(".")
            level = document
            for name in path:
                level[name] = {} if level[name] is None else level[name]
                level = level[name]
            level[last] = value
        return Recipe.model_validate(document)

    def stored_base(self) -> dict[str, Any] | None:
        """Return the base recipe's own values as a study stores them, or None where the space lacks one."""
        document = self.base.model_dump(by_alias=True)
        found = {}
        for key, parameter in self.parameters.items():
            value: Any = document
            for name in key.split("."):
                value = value.get(name) if isinstance(value, dict) else None
            if parameter.choices is not None:
                matching = [t for t, c in zip(parameter.tokens, parameter.choices, strict=True) if c == value]
                if not matching:
                    return None
                value = matching[0]
            elif not _holds(parameter, value):
                return None
            found[key] = value
        return found


def searchable() -> dict[str, tuple[type, ...]]:
    """Return every dotted key of a recipe that a space may name, with the types it takes."""
    return dict(_leaves(Recipe, ""))


def load_space(path: Path) -> Space:
    """Read and validate a space; `base` is a recipe, or the path of one, relative to the space.

    Raises:
        UsageError: missing, not YAML, or a key or value that the space or the recipe refuses.
    """
    document = load_yaml(path, "space")
    if isinstance(document.get("base"), str):
        document["base"] = load_recipe(path.parent / document["base"])
    try:
        space = Space.model_validate(document)
    except ValidationError as err:
        raise UsageError(f"{path} is not a valid space: {problems(err, Space)}") from err
    for key, parameter in space.parameters.items():
        fault = _fault(space, key, parameter)
        if fault is not None:
            raise UsageError(f"{path}: parameters.{key}: {fault}")
    return space


def try_ends(space: Space, split: Split) -> None:
    """Make the network, its optimizer and its schedule at both ends of every range and with every choice.

    Raises:
        UsageError: one cannot be made, or the base recipe's teachers cannot be used.
    """
    labels, shape = split.data.label_set, (split.data.images.shape[1], split.data.images.shape[2])
    cpu = torch.device("cpu")
    if space.base.distil is not None:
        Teachers(space.base.distil, labels, shape, cpu)
    for key, parameter in space.parameters.items():
        for end, value in parameter.ends():
            recipe = space.recipe({key: value})
            try:
                new_state(recipe, labels, shape, cpu, len(split.train) // recipe.batch_size)
            except Exception as err:  # a network's own settings may break it in any way
                gist = str(err) if isinstance(err, HwrError) else f"{type(err).__name__}: {str(err).splitlines()[0]}"
                raise UsageError(f"parameters.{key}: no training can start with the {end} {value!r}: {gist}") from err


def _fault(space: Space, key: str, parameter: Parameter) -> str | None:
    """Return what is wrong with a parameter, or None."""
    known = searchable()
    if key not in known and not (key.startswith(FREE) and key.removeprefix(FREE).isidentifier()):
        return (
            f"no key that can be searched; valid: {', '.join(known)}, {FREE}<setting of the network> "
            f"({', '.join(FIXED)} are the same for all trials)"
        )
    fault = _choices_fault(parameter) if parameter.choices is not None else _range_fault(space, key, parameter)
    if fault is not None:
        return fault
    for end, value in parameter.ends():
        try:
            space.recipe({key: value})
        except ValidationError as err:
            return f"the recipe refuses the {end} {value!r}: {problems(err, Recipe)}"
    return None


def _choices_fault(parameter: Parameter) -> str | None:
    if parameter.log or (parameter.low, parameter.high, parameter.step) != (None, None, None):
        return "give either low and high (with log or step), or choices"
    tokens = parameter.tokens
    if len(tokens) < 2 or any(tokens.index(token) != i for i, token in enumerate(tokens)):
        return f"choices are two or more different values, not {parameter.choices}"
    return None


def _range_fault(space: Space, key: str, parameter: Parameter) -> str | None:
    low, high, step = parameter.low, parameter.high, parameter.step
    if low is None or high is None:
        return "give both low and high, or choices"
    if not key.startswith(FREE) and not {int, float} & set(searchable()[key]):
        return "takes no numbers between two ends; give choices"
    if low >= high:
        return f"low {low} is not below high {high}"
    if parameter.log and (low <= 0 or step is not None):
        return "log needs a low above 0 and no step"
    if space.is_integer(key) and any(number != int(number) for number in (low, high, step or 1)):
        return f"takes whole numbers, not {low} to {high}" + (f" in steps of {step}" if step else "")
    if step is not None and (step <= 0 or not _divides(step, high - low)):
        return f"high {high} is not a whole number of steps of {step} above low {low}"
    return None


def _holds(parameter: Parameter, value: Any) -> bool:
    """Whether a range has a value."""
    if not isinstance(value, int | float) or not parameter.low <= value <= parameter.high:
        return False
    return parameter.step is None or _divides(parameter.step, value - parameter.low)


def _divides(step: float, length: float) -> bool:
    return Decimal(str(round(length, 12))) % Decimal(str(step)) == 0


def _leaves(model: type[Strict], prefix: str) -> Iterator[tuple[str, tuple[type, ...]]]:
    for key, field in zip(keys(model), model.model_fields.values(), strict=True):
        if f"{prefix}{key}" in FIXED or f"{prefix}{key}." == FREE:
            continue
        kinds = _types(field.annotation)
        inner = next((k for k in kinds if isinstance(k, type) and issubclass(k, Strict)), None)
        if inner is None:
            yield f"{prefix}{key}", kinds
        else:
            yield from _leaves(inner, f"{prefix}{key}.")


def _types(annotation: Any) -> tuple[type, ...]:
    """Return the members of a union, or the one type."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return typing.get_args(annotation)
    return (annotation,)
