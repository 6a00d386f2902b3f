"""A recipe file -> validated settings of one training run. Every key has a meaning; unknown keys are refused."""

from pathlib import Path
from typing import Any, Literal, Self, get_args

import yaml
from pydantic import Field, ValidationError, model_validator
from pydantic_core import PydanticCustomError

from hwr_export.errors import UsageError
from hwr_export.spec import LabelSet, Strict

OWN = ("idx", "folder", "csv")  # sources that are a user's own: they take a path


class ModelRecipe(Strict):
    """Which architecture, and how it is configured."""

    name: Literal["article-cnn", "edge", "edge-s", "edge-m", "resnet18", "resnet34", "torchvision"]
    config: dict[str, Any] = Field({})
    weights: str | None = Field(
        None, description="start from ImageNet: DEFAULT, a name torchvision knows, or a file of its state dict"
    )


class DataRecipe(Strict):
    """Where labelled characters come from, and how much of them is held out (by writer where ids exist).

    The names of published datasets, or one of a user's own: `idx` (a directory of IDX files), `folder` (images below
    one folder a class), `csv` (a file of paths and labels).
    """

    name: Literal[
        "mnist",
        "chars62",
        "emnist-byclass",
        "emnist-bymerge",
        "emnist-balanced",
        "emnist-letters",
        "emnist-digits",
        "idx",
        "folder",
        "csv",
    ] = "mnist"
    path: str | None = Field(
        None, min_length=1, description="of idx, folder and csv: in the working directory, else in a data root"
    )
    labels: LabelSet | None = Field(
        None, description="characters in class order; needed by idx, else the sorted labels found"
    )
    prepare: Literal["glyph", "as-is"] = Field(
        "glyph",
        description="folder and csv: normalise every image as `hwr-export read` does, or take crops as they are",
    )
    validation_fraction: float = Field(
        0.1, gt=0, lt=0.9, description="of the training images, where there is no validation part"
    )
    test_fraction: float = Field(0.1, gt=0, lt=0.9, description="of all images, where there is no test part")
    split_seed: int = Field(0, ge=0, description="of what is held out and drawn; apart from the seed of the training")
    classes: LabelSet | None = Field(None, description="only these characters of the source, in class order")
    per_class: int | None = Field(
        None, ge=2, description="use only N labels of each class, validation included: a seeded draw"
    )
    limit: int | None = Field(
        None, ge=64, description="use only N training images: the first N of a published set, else a seeded draw"
    )

    @property
    def published(self) -> bool:
        return self.name not in OWN

    @model_validator(mode="after")
    def _fits_its_source(self) -> Self:
        problems = []
        if self.published:
            if self.path is not None:
                problems.append(f"path is for {', '.join(OWN)}; {self.name} is found in the data root")
            if self.labels is not None:
                problems.append(f"labels is for {', '.join(OWN)}; {self.name} has its own")
            if self.test_fraction != type(self).model_fields["test_fraction"].default:
                problems.append(f"test_fraction is for {', '.join(OWN)}; {self.name} has a published test part")
        elif self.path is None:
            problems.append(f"{self.name} needs path")
        if self.limit is not None and self.per_class is not None:
            problems.append("limit and per_class exclude each other")
        if self.name == "idx" and self.labels is None:
            problems.append("idx needs labels, the characters in class order")
        if self.prepare == "as-is" and self.name not in ("folder", "csv"):
            problems.append(f"prepare: as-is is for folder, csv; images of {self.name} are never changed")
        if problems:
            # A custom error: a ValueError's message would begin with "Value error, ".
            raise PydanticCustomError("data_source", "{problems}", {"problems": "; ".join(problems)})
        return self


class AugmentRecipe(Strict):
    """Random distortions of each training image; 0 switches one off."""

    rotate_deg: float = Field(10.0, ge=0, le=45)
    scale: float = Field(0.1, ge=0, le=0.5)
    shear: float = Field(0.15, ge=0, le=1)
    translate_px: float = Field(2.0, ge=0, le=8)
    elastic_px: float = Field(1.5, ge=0, le=8)
    elastic_grid: int = Field(5, ge=2, le=14, description="control points of the displacement field a side")
    thickness: float = Field(
        0.0, ge=0, le=1, description="strokes thinner or thicker by up to this much of a pixel a side"
    )
    blur: float = Field(0.0, ge=0, le=1, description="up to this share of a 3 x 3 binomial blur, as of a soft focus")
    noise: float = Field(0.0, ge=0, le=0.5, description="standard deviation of grain, at most; full ink is 1")


class DistilRecipe(Strict):
    """Learn from the answers of larger models as well as from the labels (Hinton et al. 2015)."""

    teachers: list[str] = Field(min_length=1, description="checkpoints; the mean of their probabilities is the target")
    weight: float = Field(0.9, gt=0, le=1, description="share of the teachers in the loss; the labels have the rest")
    temperature: float = Field(4.0, ge=1, le=20)


class FineTuneRecipe(Strict):
    """Start from a checkpoint: its parts learn from the top down, each slower than the one above."""

    checkpoint: str
    train_from: str = Field("head", description="lowest part that learns: head, all, or the name of a part")
    lr_decay: float = Field(0.5, gt=0, le=1, description="rate of a part as a share of that of the part above it")
    unfreeze_every: int | None = Field(
        None, ge=1, description="start with the head alone; this many epochs later the next part below learns too"
    )
    batch_norm: Literal["frozen", "adapt"] = Field(
        "frozen", description="running statistics of parts that do not learn: kept, or adapted to the new images"
    )


class Recipe(Strict):
    """Everything that decides a run, data root aside."""

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    model: ModelRecipe
    data: DataRecipe = DataRecipe()
    augment: AugmentRecipe = AugmentRecipe()
    epochs: int = Field(ge=1, le=10_000)
    batch_size: int = Field(128, ge=2, le=65536)
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: float = Field(3e-3, gt=0, le=1)
    schedule: Literal["one-cycle", "cosine", "plateau", "constant"] = "one-cycle"
    early_stop_epochs: int | None = Field(
        None, ge=1, description="stop when the validation loss has not fallen for this many epochs"
    )
    weight_decay: float = Field(0.02, ge=0, le=1)
    clip_norm: float = Field(1.0, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    garbage_weight: float = Field(
        0.0, ge=0, le=2, description="weight of the loss on images that are no character; 0 shows none"
    )
    garbage_data: DataRecipe | None = Field(
        None, description="real images of other characters, half of the garbage; the training part of a source"
    )
    ema_decay: float = Field(0.995, ge=0, lt=1)
    max_accepted_error: float = Field(
        0.001, gt=0, lt=1, description="error allowed among accepted validation images; sets the rejection threshold"
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="autocast of the forward pass; auto: bf16 where it is computed, not emulated, else fp32"
    )
    compile: bool = Field(False, description="torch.compile: slow to start, then faster; needs a C++ compiler")
    deterministic: bool = Field(False, description="only algorithms that repeat bit for bit (matters on CUDA)")
    distil: DistilRecipe | None = None
    fine_tune: FineTuneRecipe | None = None
    seed: int = Field(0, ge=0)


def load_recipe(path: Path) -> Recipe:
    """Read and validate a recipe.

    Raises:
        UsageError: missing, not YAML, or a key or value that is not valid; the message names each with what is.
    """
    return validated(load_yaml(path), path)


def load_yaml(path: Path, kind: str = "recipe") -> dict[str, Any]:
    """Read the mapping in a YAML file.

    Raises:
        UsageError: missing, not YAML, or not a mapping.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as err:
        raise UsageError(f"there is no {kind} {path} ({err.strerror})") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise UsageError(f"{path} is not YAML: {' '.join(str(err).split())}") from err
    if not isinstance(document, dict):
        raise UsageError(f"{path} is not a valid {kind}: document: input should be a mapping of keys to values")
    return document


def validated(document: dict[str, Any], path: Path) -> Recipe:
    """Make a recipe of what was read from `path`.

    Raises:
        UsageError: a key or value is not valid.
    """
    try:
        return Recipe.model_validate(document)
    except ValidationError as err:
        raise UsageError(f"{path} is not a valid recipe: {problems(err, Recipe)}") from err


def problems(err: ValidationError, of: type[Strict]) -> str:
    """Return what is wrong with a document of a model, each with where it is, on one line."""
    return "; ".join(_problem(e, of) for e in err.errors())


def keys(of: type[Strict]) -> list[str]:
    """Return the keys of a document's level, as they are written."""
    return [field.alias or name for name, field in of.model_fields.items()]


def _problem(error: Any, of: type[Strict]) -> str:
    where = ".".join(map(str, error["loc"])) or "document"
    if error["type"] == "extra_forbidden":
        return f"{where}: unknown key (valid there: {', '.join(_siblings(error['loc'], of))})"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _siblings(location: tuple[str | int, ...], of: type[Strict]) -> list[str]:
    """Return the keys that are valid beside the one at `location`."""
    level = of
    for step in location[:-1]:
        field = next((f for name, f in level.model_fields.items() if step in (name, f.alias)), None)
        kinds = [] if field is None else [field.annotation, *get_args(field.annotation)]
        below = next((k for k in kinds if isinstance(k, type) and issubclass(k, Strict)), None)
        if below is None:
            break
        level = below
    return keys(level)
