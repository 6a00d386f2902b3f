"""What changes while training, made from a recipe, kept in `last.pt` and taken up again bit for bit."""

import io
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from hwr_export.errors import UsageError
from hwr_export.files import write_atomic
from hwr_export.models import build_model
from hwr_export.statistics import standard_error
from train.distributed import synchronise_batch_norm
from train.finetune import grouped, start_from
from train.imagenet import load_imagenet
from train.recipe import Recipe

SAVED = ("model", "ema", "optimizer", "schedule", "scaler")


@dataclass
class State:
    """`best_accuracy` is the best epoch's on validation; `parents` the sha256 of weights learned from."""

    model: nn.Module
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LRScheduler
    scaler: torch.amp.GradScaler
    parents: dict[str, str] = field(default_factory=dict)
    epoch: int = 0
    best_accuracy: float = 0.0
    lowest_loss: float = math.inf
    stale_epochs: int = 0

    @property
    def by_epoch(self) -> bool:
        """Whether the schedule looks at validation once an epoch instead of advancing at every step."""
        return isinstance(self.schedule, torch.optim.lr_scheduler.ReduceLROnPlateau)

    def is_among_the_best(self, accuracy: float, n: int) -> bool:
        """Whether an accuracy on `n` images is at most one standard error below the best (Breiman et al. 1984).

        The best of fifty noisy epochs is luck; of those that cannot be told from it, the newest is the most annealed.
        """
        return accuracy >= self.best_accuracy - standard_error(self.best_accuracy, n)

    def is_done(self, recipe: Recipe) -> bool:
        stopped = recipe.early_stop_epochs is not None and self.stale_epochs >= recipe.early_stop_epochs
        return stopped or self.epoch >= recipe.epochs


def new_state(
    recipe: Recipe, labels: str, shape: tuple[int, int], device: torch.device, steps_per_epoch: int, world: int = 1
) -> State:
    """Build network, EMA, optimizer and schedule as the recipe says.

    Raises:
        UsageError: the batch is larger than the data, or the network does not take images of this size.
        CheckpointError: weights to start from are missing or do not fit.
    """
    if steps_per_epoch < 1:
        raise UsageError(f"batch_size {recipe.batch_size} is larger than the training split")
    model = build_model(recipe.model.name, len(labels), recipe.model.config)
    parents = {}
    if recipe.model.weights is not None:
        load_imagenet(model, str(recipe.model.config.get("model", recipe.model.name)), recipe.model.weights)
    if recipe.fine_tune is not None:
        parents["start"] = start_from(recipe.fine_tune, recipe.model, model, labels).info.weights.sha256
    _try(model, len(labels), shape, recipe.model.name)
    model = synchronise_batch_norm(model.to(device, memory_format=torch.channels_last), world)
    optimizer = _optimizer(recipe, model)
    schedule = _schedule(recipe, optimizer, recipe.epochs * steps_per_epoch)
    ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay), use_buffers=True)
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    if recipe.compile:
        model.compile()  # after the EMA copied it: the copy stays eager
    return State(model, ema, optimizer, schedule, scaler, parents)


def save_state(path: Path, state: State) -> None:
    """Write `last.pt` whole or not at all."""
    buffer = io.BytesIO()
    torch.save(
        {name: getattr(state, name).state_dict() for name in SAVED}
        | {
            "parents": state.parents,
            "epoch": state.epoch,
            "best_accuracy": state.best_accuracy,
            "lowest_loss": state.lowest_loss,
            "stale_epochs": state.stale_epochs,
        },
        buffer,
    )
    write_atomic(path, buffer.getvalue())


def load_state(path: Path, state: State) -> None:
    """Take up a run where `last.pt` left it.

    Raises:
        UsageError: the file is broken, of another version, or the run began from other weights.
    """
    try:
        saved = torch.load(path, map_location="cpu", weights_only=True)
        for name in SAVED:
            getattr(state, name).load_state_dict(saved[name])
        parents = saved["parents"]
        state.epoch, state.best_accuracy = saved["epoch"], saved["best_accuracy"]
        state.lowest_loss, state.stale_epochs = saved["lowest_loss"], saved["stale_epochs"]
    except Exception as err:  # torch.load raises whatever its unpickler meets in a broken file
        raise UsageError(f"{path} cannot be resumed from ({type(err).__name__}); delete the run directory") from err
    if parents != state.parents:
        raise UsageError(f"{path} began from other weights than the recipe's checkpoints hold now; choose another -o")


def _try(model: nn.Module, classes: int, shape: tuple[int, int], name: str) -> None:
    """Run two blank images through, so that a network for other sizes is refused before anything starts."""
    try:
        with torch.inference_mode():
            found = model.eval()(torch.zeros(2, 1, *shape))
    except (RuntimeError, ValueError, AssertionError) as err:
        raise UsageError(
            f"{name} does not take images of {shape[0]} x {shape[1]}: {str(err).splitlines()[0][:160]}"
        ) from err
    if not isinstance(found, torch.Tensor) or found.shape != (2, classes):
        raise UsageError(f"{name} does not return one row of {classes} logits an image; choose another network")


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Weight decay pulls on convolutions and matrices only: on norms and biases it does harm."""
    if recipe.fine_tune is None:
        rated = [(list(model.parameters()), recipe.learning_rate)]
    else:
        rated = list(grouped(model, recipe.fine_tune, recipe.learning_rate))
    groups = []
    for parameters, rate in rated:
        for decayed in (True, False):
            members = [p for p in parameters if (p.ndim > 1) is decayed]
            if members:
                groups.append({"params": members, "lr": rate, "weight_decay": recipe.weight_decay if decayed else 0.0})
    match recipe.optimizer:
        case "adamw":
            return torch.optim.AdamW(groups)
        case "adam":
            return torch.optim.Adam(groups)
        case "sgd":
            return torch.optim.SGD(groups, momentum=0.9, nesterov=True)


def _schedule(
    recipe: Recipe, optimizer: torch.optim.Optimizer, total_steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    schedules = torch.optim.lr_scheduler
    match recipe.schedule:
        case "one-cycle":
            peaks = [group["lr"] for group in optimizer.param_groups]
            return schedules.OneCycleLR(optimizer, peaks, total_steps=total_steps, pct_start=0.25)
        case "cosine":
            return schedules.CosineAnnealingLR(optimizer, total_steps)
        case "plateau":
            return schedules.ReduceLROnPlateau(optimizer, factor=0.3, patience=2)
        case "constant":
            return schedules.ConstantLR(optimizer, factor=1.0, total_iters=0)
