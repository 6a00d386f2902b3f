"""What a run leaves on disk, by name, and how it gets there: whole files, and never two runs in one directory."""

import json
from pathlib import Path
from typing import Any

import torch
import yaml

from hwr_export.checkpoint import CheckpointInfo, save_checkpoint
from hwr_export.errors import HwrError, UsageError
from hwr_export.files import write_atomic
from train.recipe import Recipe
from train.state import State, save_state

LAST = "last.pt"
METRICS = "metrics.jsonl"
RECIPE = "recipe.yaml"
BAD_BATCH = "bad-batch.pt"
SHEET = "augmented.png"


def recipe_yaml(recipe: Recipe) -> bytes:
    """Return the complete recipe, defaults filled in."""
    return yaml.safe_dump(recipe.model_dump(by_alias=True), sort_keys=False).encode()


def check_run_directory(out: Path, recipe: Recipe, resume: bool) -> None:
    """Refuse to mix two runs in one directory."""
    kept = out / RECIPE
    if not kept.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} exists and is not a run directory; choose another -o")
        return
    if not resume:
        raise UsageError(f"{out} already holds a run; pass --resume to continue it, or choose another -o")
    if kept.read_bytes() != recipe_yaml(recipe):
        raise UsageError(f"{out} holds a run of another recipe (see {kept}); choose another -o")


def kept_recipe(out: Path) -> Recipe | None:
    """Return the recipe of the run that a directory holds, None where there is none that can be read."""
    try:
        return Recipe.model_validate(yaml.safe_load((out / RECIPE).read_bytes()))
    except (OSError, ValueError, yaml.YAMLError):
        return None


def keep_metrics_of(path: Path, epochs: int) -> None:
    """Drop lines of epochs that a kill left without a saved state."""
    lines = path.read_bytes().splitlines(keepends=True)[:epochs] if path.is_file() else []
    write_atomic(path, b"".join(lines))


def keep_epoch(out: Path, state: State, best: tuple[CheckpointInfo, bytes] | None, record: dict[str, Any]) -> None:
    """Write what the epoch made; the state last, for a resumed run repeats whatever it does not know of."""
    try:
        if best is not None:
            save_checkpoint(out, *best)
        with (out / METRICS).open("a") as file:
            file.write(json.dumps(record) + "\n")
        save_state(out / LAST, state)
    except OSError as err:
        raise HwrError(
            f"epoch {state.epoch} could not be kept in {out} ({err.strerror or err}); what was kept before is whole: "
            "make room and continue with --resume"
        ) from err


def keep_bad_batch(
    path: Path, state: State, inputs: torch.Tensor, targets: torch.Tensor, logits: torch.Tensor, step: int
) -> None:
    """Save what the loss failed on, and the weights it failed with."""
    torch.save(
        {
            "inputs": inputs.cpu(),
            "labels": targets.cpu(),
            "logits": logits.detach().cpu(),
            "epoch": state.epoch + 1,
            "step": step + 1,
            "model": state.model.state_dict(),
        },
        path,
    )
