"""Recipe -> run directory with the best checkpoint: the training loop, readable top to bottom.

A run directory holds `recipe.yaml`, `metrics.jsonl` (a line an epoch), `checkpoint.json` + weights (the best epoch
on validation) and `last.pt` (everything needed to go on). A kill loses the epoch in hand at most.
"""

import json
import math
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import yaml
from rich.console import Console
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import hwr_export
from hwr_export.checkpoint import CHECKPOINT_JSON, CheckpointInfo, save_checkpoint, weights_bytes, weights_file
from hwr_export.console import progress_bar
from hwr_export.errors import HwrError, UsageError
from hwr_export.files import write_atomic
from hwr_export.models import build_model, count_parameters
from hwr_export.spec import Preprocessing
from hwr_export.statistics import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    rejection_threshold,
    softmax,
)
from train.augment import augment
from train.data import Split, normalisation, split_training_data
from train.garbage import garbage_like, garbage_loss
from train.recipe import Recipe

LAST = "last.pt"
METRICS = "metrics.jsonl"


@dataclass
class State:
    """What changes while training. `best` is (accuracy, -loss) of the best epoch on validation."""

    model: nn.Module
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    epoch: int = 0
    best: tuple[float, float] = (-1.0, 0.0)
    lowest_loss: float = math.inf
    stale_epochs: int = 0

    @property
    def by_epoch(self) -> bool:
        """Whether the schedule looks at validation once an epoch instead of advancing at every step."""
        return isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau)


def fit(recipe: Recipe, out: Path, data_root: Path | None, resume: bool, console: Console) -> Path:
    """Train as the recipe says and return the path of the best checkpoint.

    Raises:
        UsageError: `out` holds a run and `resume` was not asked for, or it is a run of another recipe.
        DataError: the data is missing or broken.
        HwrError: the loss stopped being a number.
    """
    _check_run_directory(out, recipe, resume)
    split = split_training_data(recipe.data, recipe.seed, data_root)
    mean, std = normalisation(split.data.images[split.train])
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(recipe.seed)
    steps_per_epoch = len(split.train) // recipe.batch_size
    state = _new_state(recipe, len(split.data.label_set), device, steps_per_epoch)
    if resume and (out / LAST).is_file():
        _load_state(out / LAST, state)
        done = _is_done(state, recipe)
        console.print("this run is complete" if done else f"resuming after epoch {state.epoch} of {recipe.epochs}")
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / "recipe.yaml", recipe_yaml(recipe))
    _keep_metrics_of(out / METRICS, state.epoch)

    images = torch.tensor(split.data.images, device=device)
    labels = torch.tensor(split.data.labels, device=device)
    train_images, train_labels = images[split.train], labels[split.train]
    validation_images = normalise(to_unit(images[split.validation]), mean, std)
    validation_labels = split.data.labels[split.validation]
    console.print(
        f"{recipe.model.name}: {count_parameters(state.model):,} parameters on {device.type}; "
        f"{len(split.train):,} training and {len(split.validation):,} validation images, "
        f"split {split.description['split']}"
    )
    with progress_bar(console) as progress:
        while not _is_done(state, recipe):
            # One seed an epoch makes a resumed run repeat the uninterrupted one, with no generator state to keep.
            torch.manual_seed(recipe.seed * 1_000_003 + state.epoch + 1)
            task = progress.add_task(f"epoch {state.epoch + 1:>3}/{recipe.epochs}", total=steps_per_epoch)
            loss = _train_epoch(state, recipe, train_images, train_labels, (mean, std), partial(progress.advance, task))
            state.epoch += 1
            logits = predict(state.ema.module, validation_images)
            accuracy = float((logits.argmax(1) == validation_labels).mean())
            validation_loss = negative_log_likelihood(logits, validation_labels)
            if state.by_epoch:
                state.schedule.step(validation_loss)
            state.stale_epochs = 0 if validation_loss < state.lowest_loss else state.stale_epochs + 1
            state.lowest_loss = min(state.lowest_loss, validation_loss)
            record = {
                "epoch": state.epoch,
                "train_loss": round(loss, 6),
                "validation_loss": round(validation_loss, 6),
                "validation_accuracy": round(accuracy, 6),
                "learning_rate": state.schedule.get_last_lr()[0],
            }
            improved = (accuracy, -validation_loss) > state.best
            if improved:
                state.best = (accuracy, -validation_loss)
                save_checkpoint(out, *_best_checkpoint(state, recipe, split, (mean, std), logits, record))
            _save_state(out / LAST, state)
            with (out / METRICS).open("a") as file:
                file.write(json.dumps(record) + "\n")
            progress.remove_task(task)
            console.print(
                f"epoch {state.epoch:>3}/{recipe.epochs}  train loss {loss:.4f}  validation loss {validation_loss:.4f}"
                f"  accuracy {100 * accuracy:.2f} %{'  best' if improved else ''}"
            )
            if _is_done(state, recipe) and state.epoch < recipe.epochs:
                console.print(f"stopped: the validation loss has not fallen for {state.stale_epochs} epochs")
    return out / CHECKPOINT_JSON


@torch.inference_mode()
def predict(model: nn.Module, images: torch.Tensor, batch: int = 1024) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return eval-mode logits float32 (N, classes) of normalised images (N, 1, H, W)."""
    model.eval()
    return torch.cat([model(part).float().cpu() for part in images.split(batch)]).numpy()


def recipe_yaml(recipe: Recipe) -> bytes:
    """Return the complete recipe, defaults filled in."""
    return yaml.safe_dump(recipe.model_dump(by_alias=True), sort_keys=False).encode()


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W) -> float32 (N, 1, H, W) in [0, 1]."""
    return images.unsqueeze(1).float() / 255


def normalise(images: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """[0, 1] -> zero mean and unit variance over the training split."""
    return (images - mean) / std


def _train_epoch(
    state: State,
    recipe: Recipe,
    images: torch.Tensor,
    labels: torch.Tensor,
    mean_std: tuple[float, float],
    on_step: Callable[[], None],
) -> float:
    """One pass over the training images, uint8 (N, H, W); returns the mean loss."""
    state.model.train()
    total, steps = 0.0, len(labels) // recipe.batch_size
    order = torch.randperm(len(labels)).to(labels.device)
    for step in range(steps):
        batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        # Distorted before it is normalised, so that what comes in from outside the frame is background.
        distorted = augment(to_unit(images[batch]), recipe.augment)
        if recipe.garbage_weight:
            # A quarter as much garbage as characters, in the same batch: batch norm sees both, as on a scanner.
            distorted = torch.cat([distorted, garbage_like(distorted[: len(batch) // 4])])
        inputs = normalise(distorted, *mean_std)
        inputs = inputs.contiguous(memory_format=torch.channels_last)
        with torch.autocast(images.device.type, dtype=torch.bfloat16):
            logits = state.model(inputs)
        logits = logits.float()
        loss = F.cross_entropy(logits[: len(batch)], labels[batch], label_smoothing=recipe.label_smoothing)
        if recipe.garbage_weight:
            loss = loss + recipe.garbage_weight * garbage_loss(logits[len(batch) :])
        if not torch.isfinite(loss):
            raise HwrError(
                f"the training loss became {loss.item()} at step {step + 1} of epoch {state.epoch + 1}; "
                "lower learning_rate in the recipe (the last whole epoch is kept)"
            )
        state.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_norm)
        state.optimizer.step()
        if not state.by_epoch:
            state.schedule.step()
        state.ema.update_parameters(state.model)
        total += loss.item()
        on_step()
    return total / steps


def _new_state(recipe: Recipe, classes: int, device: torch.device, steps_per_epoch: int) -> State:
    if steps_per_epoch < 1:
        raise UsageError(f"batch_size {recipe.batch_size} is larger than the training split")
    model = build_model(recipe.model.name, classes, recipe.model.config)
    model = model.to(device, memory_format=torch.channels_last)
    # Weight decay pulls on convolutions and matrices only: on norms and biases it does harm.
    decayed = [p for p in model.parameters() if p.ndim > 1]
    rest = [p for p in model.parameters() if p.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer: torch.optim.Optimizer
    match recipe.optimizer:
        case "adamw":
            optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate)
        case "adam":
            optimizer = torch.optim.Adam(groups, lr=recipe.learning_rate)
        case "sgd":
            optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=0.9, nesterov=True)
    schedule = _new_schedule(recipe, optimizer, recipe.epochs * steps_per_epoch)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    return State(model, ema, optimizer, schedule)


def _new_schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    schedules = torch.optim.lr_scheduler
    match recipe.schedule:
        case "one-cycle":
            return schedules.OneCycleLR(optimizer, recipe.learning_rate, total_steps=total_steps, pct_start=0.25)
        case "cosine":
            return schedules.CosineAnnealingLR(optimizer, total_steps)
        case "plateau":
            return schedules.ReduceLROnPlateau(optimizer, factor=0.3, patience=2)
        case "constant":
            return schedules.ConstantLR(optimizer, factor=1.0, total_iters=0)


def _is_done(state: State, recipe: Recipe) -> bool:
    stopped = recipe.early_stop_epochs is not None and state.stale_epochs >= recipe.early_stop_epochs
    return stopped or state.epoch >= recipe.epochs


def _best_checkpoint(
    state: State,
    recipe: Recipe,
    split: Split,
    mean_std: tuple[float, float],
    logits: np.ndarray[Any, Any],
    record: dict[str, Any],
) -> tuple[CheckpointInfo, bytes]:
    """Calibrate on validation: temperature first, then the rejection threshold at that temperature."""
    labels = split.data.labels[split.validation]
    temperature = round(fit_temperature(logits, labels), 6)
    probabilities = softmax(logits, temperature)
    correct = probabilities.argmax(1) == labels
    threshold = rejection_threshold(probabilities.max(1), correct, recipe.max_accepted_error)
    accepted = probabilities.max(1) >= threshold
    weights = weights_bytes(state.ema.module)
    height, width = split.data.images.shape[1:]
    info = CheckpointInfo(
        name=recipe.name,
        kind="architecture",
        architecture=recipe.model.name,
        config=recipe.model.config,
        labels=split.data.label_set,
        preprocessing=Preprocessing(height=height, width=width, mean=mean_std[0], std=mean_std[1]),
        temperature=temperature,
        reject_below=threshold,
        parameters=count_parameters(state.model),
        weights=weights_file(weights),
        recipe=recipe.model_dump(by_alias=True),
        data=split.description,
        seed=recipe.seed,
        metrics={
            **record,
            "validation_ece": round(expected_calibration_error(probabilities, labels), 6),
            "validation_rejected": round(float(1 - accepted.mean()), 6),
            "validation_error_accepted": round(float(1 - correct[accepted].mean()) if accepted.any() else 0.0, 6),
        },
        versions={
            "hwr_export": hwr_export.__version__,
            "torch": str(torch.__version__),
            "python": platform.python_version(),
        },
    )
    return info, weights


def _check_run_directory(out: Path, recipe: Recipe, resume: bool) -> None:
    """Refuse to mix two runs in one directory."""
    kept = out / "recipe.yaml"
    if not kept.is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise UsageError(f"{out} exists and is not a run directory; choose another -o")
        return
    if not resume:
        raise UsageError(f"{out} already holds a run; pass --resume to continue it, or choose another -o")
    if kept.read_bytes() != recipe_yaml(recipe):
        raise UsageError(f"{out} holds a run of another recipe (see {kept}); choose another -o")


def _keep_metrics_of(path: Path, epochs: int) -> None:
    """Drop lines of epochs that a kill left without a saved state."""
    lines = path.read_bytes().splitlines(keepends=True)[:epochs] if path.is_file() else []
    write_atomic(path, b"".join(lines))


def _save_state(path: Path, state: State) -> None:
    temporary = path.with_suffix(".part")
    torch.save(
        {
            "model": state.model.state_dict(),
            "ema": state.ema.state_dict(),
            "optimizer": state.optimizer.state_dict(),
            "schedule": state.schedule.state_dict(),
            "epoch": state.epoch,
            "best": state.best,
            "lowest_loss": state.lowest_loss,
            "stale_epochs": state.stale_epochs,
        },
        temporary,
    )
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)


def _load_state(path: Path, state: State) -> None:
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for part in ("model", "ema", "optimizer", "schedule"):
            getattr(state, part).load_state_dict(saved[part])
        state.epoch, state.best = saved["epoch"], tuple(saved["best"])
        state.lowest_loss, state.stale_epochs = saved["lowest_loss"], saved["stale_epochs"]
    except Exception as err:  # torch.load raises whatever its unpickler meets in a broken file
        raise UsageError(f"{path} cannot be resumed from ({type(err).__name__}); delete the run directory") from err
