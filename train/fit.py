"""Recipe -> run directory with the best checkpoint: the training loop, readable top to bottom.

A run directory holds `recipe.yaml`, `metrics.jsonl` (a line an epoch), `augmented.png`, `checkpoint.json` + weights
(the newest of the best epochs on validation) and `last.pt` (everything needed to go on). A kill loses the epoch in hand
at most.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
import torch.nn.functional as F
from rich.console import Console
from torch import nn

from hwr_export.checkpoint import CHECKPOINT_JSON
from hwr_export.console import progress_bar
from hwr_export.errors import HwrError
from hwr_export.files import write_atomic
from hwr_export.models import count_parameters
from hwr_export.statistics import negative_log_likelihood
from train.augment import augment
from train.calibrate import calibrated_checkpoint, calibrated_loss
from train.data import Split, normalisation, split_training_data
from train.distil import Teachers
from train.distributed import check_batch, from_first, mean_of_all, parallel, process_group, share
from train.finetune import set_learning
from train.garbage import garbage_like, garbage_loss, other_characters
from train.recipe import Recipe
from train.run_directory import (
    BAD_BATCH,
    LAST,
    METRICS,
    RECIPE,
    SHEET,
    check_run_directory,
    keep_bad_batch,
    keep_epoch,
    keep_metrics_of,
    kept_recipe,
    recipe_yaml,
)
from train.sheet import write_sheet
from train.state import State, load_state, new_state

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
BF16_PROCESSORS = ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")  # as PyTorch names what a processor computes itself

OnEpoch = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Batches:
    """The training images and what is done to them; every process holds all and works on its share.

    `images` uint8 (N, H, W), `labels` int64 (N,), `weights` float64 (N,) to draw images by, or None: once each;
    `garbage` uint8 (M, H, W), real images of other characters, maybe none.
    """

    images: torch.Tensor
    labels: torch.Tensor
    label_set: str
    weights: torch.Tensor | None
    garbage: torch.Tensor
    mean_std: tuple[float, float]
    teachers: Teachers | None
    rank: int
    world: int


def fit(
    recipe: Recipe,
    out: Path,
    data_root: Path | None,
    resume: bool,
    console: Console,
    *,
    tensorboard: bool = False,
    on_epoch: OnEpoch | None = None,
) -> Path:
    """Train as the recipe says and return the path of the best checkpoint.

    Args:
        on_epoch: called with each epoch's record; whatever it raises ends the run between two epochs.

    Raises:
        UsageError: `out` holds a run and `resume` was not asked for, or it is a run of another recipe.
        DataError: the data is missing or broken.
        HwrError: the loss stopped being a number.
    """
    recipe = with_precision(recipe, out)
    check_run_directory(out, recipe, resume)
    split = split_training_data(recipe.data, data_root)
    return fit_split(recipe, split, out, data_root, resume, console, tensorboard=tensorboard, on_epoch=on_epoch)


def fit_split(
    recipe: Recipe,
    split: Split,
    out: Path,
    data_root: Path | None,
    resume: bool,
    console: Console,
    *,
    weights: np.ndarray[Any, Any] | None = None,
    mean_std: tuple[float, float] | None = None,
    tensorboard: bool = False,
    on_epoch: OnEpoch | None = None,
) -> Path:
    """Train on a split that is already there; see `fit`.

    Args:
        weights: float (len(split.train),), how often each training image is drawn; None shows each once an epoch.
        mean_std: normalisation to keep from an earlier model; None takes that of the training part.
        data_root: where the recipe's `garbage_data` is looked for.
    """
    recipe = with_precision(recipe, out)
    check_run_directory(out, recipe, resume)
    garbage = other_characters(recipe, split.data, data_root)
    with ExitStack() as stack:
        rank, world = stack.enter_context(process_group())
        check_batch(recipe.batch_size, world)
        if rank:
            console = Console(quiet=True)
        if recipe.deterministic:
            stack.enter_context(_deterministic())
        device = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
        labels, shape = split.data.label_set, (split.data.images.shape[1], split.data.images.shape[2])
        torch.manual_seed(recipe.seed)
        state = new_state(recipe, labels, shape, device, len(split.train) // recipe.batch_size, world)
        teachers = None if recipe.distil is None else Teachers(recipe.distil, labels, shape, device)
        if teachers is not None:
            state.parents |= teachers.parents
        if resume and (out / LAST).is_file():
            load_state(out / LAST, state)
            done = state.is_done(recipe)
            console.print("this run is complete" if done else f"resuming after epoch {state.epoch} of {recipe.epochs}")
        if world > 1:
            dist.barrier()  # nobody writes before everybody has looked at what was there
        mean_std = mean_std or normalisation(split.data.images[split.train])
        batches = Batches(
            images=torch.tensor(split.data.images[split.train], device=device),
            labels=torch.tensor(split.data.labels[split.train], device=device),
            label_set=labels,
            weights=None if weights is None else torch.tensor(weights, dtype=torch.float64),
            garbage=torch.tensor(garbage, device=device),
            mean_std=mean_std,
            teachers=teachers,
            rank=rank,
            world=world,
        )
        if rank == 0:
            out.mkdir(parents=True, exist_ok=True)
            write_atomic(out / RECIPE, recipe_yaml(recipe))
            keep_metrics_of(out / METRICS, state.epoch)
            write_sheet(out / SHEET, to_unit(batches.images[:64]), recipe, labels)
        console.print(
            f"{recipe.model.name}: {count_parameters(state.model):,} parameters on "
            f"{device.type}{f' x {world}' if world > 1 else ''}; {len(split.train):,} training and "
            f"{len(split.validation):,} validation images, split {split.description['split']}"
        )
        if recipe.precision == "bf16" and device.type == "cpu" and not _computes_bf16():
            console.print("this processor emulates bf16: precision: fp32 in the recipe may be ten times faster here")
        log = stack.enter_context(_tensorboard(out, state.epoch)) if tensorboard and rank == 0 else None
        _run(state, recipe, split, batches, out, console, log, on_epoch)
    return out / CHECKPOINT_JSON


def _run(
    state: State,
    recipe: Recipe,
    split: Split,
    batches: Batches,
    out: Path,
    console: Console,
    log: Any,
    on_epoch: OnEpoch | None,
) -> None:
    """Epoch after epoch: train, validate, keep the best, save, report."""
    validation = torch.tensor(split.data.images[split.validation], device=batches.images.device)
    validation_images = normalise(to_unit(validation), *batches.mean_std)
    validation_labels = split.data.labels[split.validation]
    with progress_bar(console) as progress:
        while not state.is_done(recipe):
            # One seed an epoch makes a resumed run repeat the uninterrupted one, with no generator state to keep.
            torch.manual_seed(recipe.seed * 1_000_003 + state.epoch + 1)
            steps = len(batches.labels) // recipe.batch_size
            task = progress.add_task(f"epoch {state.epoch + 1:>3}/{recipe.epochs}", total=steps)
            record = _train_epoch(state, recipe, batches, out, lambda task=task: progress.advance(task))
            state.epoch += 1
            logits = predict(state.ema.module, validation_images)
            accuracy = float((logits.argmax(1) == validation_labels).mean())
            loss = negative_log_likelihood(logits, validation_labels)
            accuracy, loss = from_first((accuracy, loss))
            if not math.isfinite(loss):
                raise HwrError(
                    f"the validation loss became {loss} after epoch {state.epoch}; lower learning_rate in the recipe"
                )
            if state.by_epoch:
                state.schedule.step(loss)
            state.stale_epochs = 0 if loss < state.lowest_loss else state.stale_epochs + 1
            state.lowest_loss = min(state.lowest_loss, loss)
            record |= {
                "validation_loss": round(loss, 6),
                "validation_loss_calibrated": round(calibrated_loss(logits, validation_labels), 6),
                "validation_accuracy": round(accuracy, 6),
                "learning_rate": state.schedule.get_last_lr()[-1],
            }
            keep = state.is_among_the_best(accuracy, len(logits))
            state.best_accuracy = max(state.best_accuracy, accuracy)
            if batches.rank == 0:
                best = calibrated_checkpoint(
                    state.ema.module, logits, recipe, split, batches.mean_std, state.parents, record
                ) if keep else None  # fmt: skip
                keep_epoch(out, state, best, record)
            if log is not None:
                for name, value in record.items():
                    log.add_scalar(name, value, state.epoch)
            progress.remove_task(task)
            console.print(
                f"epoch {state.epoch:>3}/{recipe.epochs}  train loss {record['train_loss']:.4f}  validation loss "
                f"{loss:.4f}  accuracy {100 * accuracy:.2f} %{'  kept' if keep else ''}"
            )
            if state.is_done(recipe) and state.epoch < recipe.epochs:
                console.print(f"stopped: the validation loss has not fallen for {state.stale_epochs} epochs")
            if on_epoch is not None:
                on_epoch(record)


def _train_epoch(
    state: State, recipe: Recipe, batches: Batches, out: Path, on_step: Callable[[], None]
) -> dict[str, Any]:
    """One pass over the training images; returns the epoch, its mean loss and gradient norm, and the share clipped."""
    if recipe.fine_tune is None:
        state.model.train()
    else:
        set_learning(state.model, recipe.fine_tune, state.epoch)
    forward = parallel(state.model, batches.world)
    device = batches.labels.device
    steps = len(batches.labels) // recipe.batch_size
    order = _order(batches).to(device)
    loss_sum, norm_sum, clipped = 0.0, 0.0, 0
    for step in range(steps):
        batch = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        inputs, targets, soft, junk = batch_inputs(recipe, batches, batch)
        with (
            _own_randomness(batches, state.epoch * steps + step),
            torch.autocast(device.type, dtype=DTYPES[recipe.precision], enabled=recipe.precision != "fp32"),
        ):
            logits = forward(inputs)
        logits = logits.float()
        real = logits[: len(targets)]
        loss = F.cross_entropy(real, targets, label_smoothing=recipe.label_smoothing)
        if batches.teachers is not None:
            weight = batches.teachers.recipe.weight
            loss = (1 - weight) * loss + weight * batches.teachers.loss(real, soft)
        loss = loss * (len(targets) * batches.world / len(batch))
        if junk:
            share_of_junk = (len(logits) - len(targets)) * batches.world / junk
            loss = loss + recipe.garbage_weight * share_of_junk * garbage_loss(logits[len(targets) :])
        if not torch.isfinite(loss):
            keep_bad_batch(out / BAD_BATCH, state, inputs, targets, logits, step)
            raise HwrError(
                f"the training loss became {loss.item()} at step {step + 1} of epoch {state.epoch + 1}; lower "
                f"learning_rate in the recipe (the last whole epoch is kept; the batch is in {out / BAD_BATCH})"
            )
        state.optimizer.zero_grad(set_to_none=True)
        state.scaler.scale(loss).backward()
        state.scaler.unscale_(state.optimizer)
        norm = nn.utils.clip_grad_norm_(state.model.parameters(), recipe.clip_norm).item()
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if not state.by_epoch:
            state.schedule.step()
        state.ema.update_parameters(state.model)
        loss_sum, norm_sum, clipped = loss_sum + loss.item(), norm_sum + norm, clipped + (norm > recipe.clip_norm)
        on_step()
    return {
        "epoch": state.epoch + 1,
        "train_loss": round(mean_of_all(loss_sum) / steps, 6),
        "gradient_norm": round(norm_sum / steps, 6),
        "gradient_clipped": round(clipped / steps, 6),
    }


def _order(batches: Batches) -> torch.Tensor:
    if batches.weights is None:
        return torch.randperm(len(batches.labels))
    return torch.multinomial(batches.weights, len(batches.labels), replacement=True)


def batch_inputs(
    recipe: Recipe, batches: Batches, batch: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None, int]:
    """Make one batch: this process's share of inputs, labels and the teachers' answers, and how much garbage all have.

    Distorted before it is normalised, so that what comes in from outside the frame is background. A quarter as much
    garbage as characters, in the same batch: batch norm sees both, as on a scanner.
    """
    distorted = augment(to_unit(batches.images[batch]), recipe.augment)
    garbage = _garbage(recipe, batches, distorted[: len(batch) // 4]) if recipe.garbage_weight else distorted[:0]
    mine = distorted[share(len(batch), batches.rank, batches.world)]
    targets = batches.labels[batch][share(len(batch), batches.rank, batches.world)]
    soft = None if batches.teachers is None else batches.teachers.probabilities(mine)
    inputs = torch.cat([mine, garbage[share(len(garbage), batches.rank, batches.world)]])
    inputs = normalise(inputs, *batches.mean_std).contiguous(memory_format=torch.channels_last)
    return inputs, targets, soft, len(garbage)


def _garbage(recipe: Recipe, batches: Batches, distorted: torch.Tensor) -> torch.Tensor:
    """Return as many images that are no character of ours, half of them real ones where there are any."""
    if not len(batches.garbage):
        return garbage_like(distorted, batches.label_set)
    real = len(distorted) // 2
    drawn = torch.randint(len(batches.garbage), (real,)).to(batches.garbage.device)
    others = augment(to_unit(batches.garbage[drawn]), recipe.augment)
    return torch.cat([others, garbage_like(distorted[real:], batches.label_set)])


@torch.inference_mode()
def predict(model: nn.Module, images: torch.Tensor, batch: int = 1024) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return eval-mode logits float32 (N, classes) of normalised images (N, 1, H, W)."""
    model.eval()
    return torch.cat([model(part).float().cpu() for part in images.split(batch)]).numpy()


def to_unit(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, H, W) -> float32 (N, 1, H, W) in [0, 1]."""
    return images.unsqueeze(1).float() / 255


def normalise(images: torch.Tensor, mean: float, std: float) -> torch.Tensor:
    """[0, 1] -> zero mean and unit variance over the training split."""
    return (images - mean) / std


def with_precision(recipe: Recipe, out: Path) -> Recipe:
    """Return the recipe with a precision in place of `auto`: what a run that is there began with, else what suits."""
    if recipe.precision != "auto":
        return recipe
    kept = kept_recipe(out)
    if kept is not None:
        return recipe.model_copy(update={"precision": kept.precision})
    computed = torch.cuda.is_bf16_supported() if torch.cuda.is_available() else _computes_bf16()
    return recipe.model_copy(update={"precision": "bf16" if computed else "fp32"})


def _computes_bf16() -> bool:
    return any(torch.cpu.get_capabilities().get(name) for name in BF16_PROCESSORS)


@contextmanager
def _own_randomness(batches: Batches, step: int) -> Iterator[None]:
    """Give each of several processes dropout of its own without moving the randomness that they share."""
    if batches.world == 1:
        yield
        return
    with torch.random.fork_rng(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else []):
        torch.manual_seed(step * batches.world + batches.rank)
        yield


@contextmanager
def _deterministic() -> Iterator[None]:
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


@contextmanager
def _tensorboard(out: Path, epoch: int) -> Iterator[Any]:
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(out / "tensorboard", purge_step=epoch + 1) as writer:
        yield writer
