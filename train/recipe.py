"""A recipe file -> validated settings of one training run. Every key has a meaning; unknown keys are refused."""

from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError

from hwr_export.errors import UsageError
from hwr_export.spec import Strict


class ModelRecipe(Strict):
    """Which architecture, and how it is configured."""

    name: Literal["article-cnn", "edge", "edge-s", "edge-m", "resnet18", "resnet34", "torchvision"]
    config: dict[str, Any] = Field({})
    weights: str | None = Field(
        None, description="start from ImageNet: DEFAULT, a name torchvision knows, or a file of its state dict"
    )


class DataRecipe(Strict):
    """Which dataset, and how much of its training split is held out for validation (by writer where ids exist)."""

    name: Literal["mnist", "chars62"] = "mnist"
    validation_fraction: float = Field(0.1, gt=0, lt=0.9)
    limit: int | None = Field(None, ge=64, description="use only the first N training images")


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
    ema_decay: float = Field(0.995, ge=0, lt=1)
    max_accepted_error: float = Field(
        0.001, gt=0, lt=1, description="error allowed among accepted validation images; sets the rejection threshold"
    )
    precision: Literal["bf16", "fp16", "fp32"] = Field("bf16", description="autocast of the forward pass; fp16 scales")
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
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as err:
        raise UsageError(f"there is no recipe {path} ({err.strerror})") from err
    except (yaml.YAMLError, UnicodeDecodeError) as err:
        raise UsageError(f"{path} is not YAML: {' '.join(str(err).split())}") from err
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
        return f"{where}: unknown key (valid at the top: {', '.join(keys(of))})"
    return f"{where}: {error['msg'][0].lower()}{error['msg'][1:]}"
