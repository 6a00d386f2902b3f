"""Checkpoint -> a checkpoint whose weights know that they will be rounded, for when PTQ alone misses the budget.

The network learns under simulated int8 rounding to answer as it did in float (self-distillation), on the recipe's data
and augmentation, garbage included. Out comes an ordinary checkpoint with the scales of the activations in it:
`hwr-export onnx` and `quantize` take it as any other, and what they make of it is measured on the validation part.
"""

import json
import math
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import ValidationError
from rich.console import Console
from torch import nn
from torch.fx import GraphModule

from hwr_export.calibration import CALIBRATION, TRAINED, Observer, even_order
from hwr_export.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hwr_export.console import progress_bar
from hwr_export.errors import DataError, HwrError, UsageError
from hwr_export.files import json_bytes, write_atomic
from hwr_export.models import build_model
from hwr_export.program import program_from_network
from hwr_export.quantizer import EPS, Int8Quantizer, activation_observers, activations, int8_program, weights
from hwr_export.sensitivity import divergence
from train.calibrate import calibrated_checkpoint
from train.data import Split, split_training_data
from train.fit import Batches, batch_inputs, normalise, predict, to_unit
from train.garbage import other_characters
from train.recipe import Recipe
from train.run_directory import METRICS, RECIPE, check_run_directory, recipe_yaml

with warnings.catch_warnings(action="ignore"):  # as in hwr_export.quantizer
    from torchao.quantization.pt2e import (
        FakeQuantize,
        MovingAverageMinMaxObserver,
        MovingAveragePerChannelMinMaxObserver,
        disable_observer,
        enable_observer,
    )
    from torchao.quantization.pt2e.quantize_pt2e import prepare_qat_pt2e

REPORT = "qat.json"
RATE = 0.05  # of the recipe's learning rate: what is learned already has to be kept
TRAINING_OF_BATCH_NORM = 5  # aten.batch_norm(input, weight, bias, mean, variance, training, ...)


def qat(
    path: Path, out: Path, data_root: Path | None, console: Console, *, epochs: int = 3, rate: float = RATE
) -> dict[str, Any]:
    """Fine-tune a checkpoint for int8, keep the best epoch in `out`, and report what PTQ makes of it before and after.

    Args:
        path: checkpoint of one of our recipes, whose data are still there.
        rate: peak learning rate, as a share of the recipe's; it falls to zero along a cosine.

    Raises:
        UsageError: `out` is taken, or the checkpoint is not one of our recipes.
        DataError: the data are missing or broken.
        HwrError: the loss stopped being a number.
    """
    source = load_checkpoint(path)
    recipe = _recipe(source, path)
    check_run_directory(out, recipe, resume=False)
    split = split_training_data(recipe.data, data_root)
    _refuse_other_data(source, split, path)
    p = source.info.preprocessing
    batches = Batches(
        images=torch.tensor(split.data.images[split.train]),
        labels=torch.tensor(split.data.labels[split.train]),
        label_set=split.data.label_set,
        weights=None,
        garbage=torch.tensor(other_characters(recipe, split.data, data_root)),
        mean_std=(p.mean, p.std),
        teachers=None,
        rank=0,
        world=1,
    )
    images = normalise(to_unit(torch.tensor(split.data.images[split.validation])), *batches.mean_std)
    labels = split.data.labels[split.validation]
    reference = predict(source.module, images)
    out.mkdir(parents=True, exist_ok=True)
    write_atomic(out / RECIPE, recipe_yaml(recipe))
    write_atomic(out / METRICS, b"")

    torch.manual_seed(recipe.seed)
    network = build_model(source.info.architecture, len(source.info.labels), source.info.config)
    network.load_state_dict(source.module.state_dict())
    rounded = prepared_for_qat(network, batches.images[: recipe.batch_size], batches.mean_std)
    best = math.inf
    steps = len(batches.labels) // recipe.batch_size
    optimizer = torch.optim.AdamW(rounded.parameters(), lr=rate * recipe.learning_rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * steps)
    with progress_bar(console) as progress:
        for epoch in range(1, epochs + 1):
            torch.manual_seed(recipe.seed * 1_000_003 + epoch)
            # Ranges follow the weights at first and then stand still, as they will in the file.
            rounded.apply(enable_observer if epoch < epochs or epochs == 1 else disable_observer)
            task = progress.add_task(f"epoch {epoch}/{epochs}", total=steps)
            losses = []
            for loss in _losses(rounded, source.module, recipe, batches):
                if not torch.isfinite(loss):
                    raise HwrError(f"the loss became {loss.item()} in epoch {epoch}; pass a lower --rate")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                nn.utils.clip_grad_norm_(rounded.parameters(), recipe.clip_norm)
                optimizer.step()
                schedule.step()
                losses.append(loss.item())
                progress.advance(task)
            rounded.apply(disable_observer)
            logits = _predict(rounded, images, recipe.batch_size)
            record = {
                "epoch": epoch,
                "train_loss": round(float(np.mean(losses)), 6),
                "validation_divergence": round(divergence(reference, logits), 8),
                "validation_accuracy": round(float((logits.argmax(1) == labels).mean()), 6),
                "learning_rate": schedule.get_last_lr()[0],
            }
            with (out / METRICS).open("a") as file:
                file.write(json.dumps(record) + "\n")
            if record["validation_divergence"] < best:
                best = record["validation_divergence"]
                _take_weights(network, rounded)
                kept = calibrated_checkpoint(
                    network, predict(network, images), recipe, split, batches.mean_std,
                    {"float": source.info.weights.sha256}, record,
                )  # fmt: skip
                scales = [float(one.scale) for one in activation_observers(rounded)]
                save_checkpoint(out, kept[0].model_copy(update={"activation_scales": scales}), kept[1])
            progress.remove_task(task)
            console.print(
                f"epoch {epoch}/{epochs}  loss {record['train_loss']:.5f}  rounded: accuracy "
                f"{100 * record['validation_accuracy']:.2f} %, divergence {record['validation_divergence']:.2g}"
            )
    tuned = load_checkpoint(out)
    report = _report(source, tuned, split, images, labels)
    write_atomic(out / REPORT, json_bytes(report))
    return report


def prepared_for_qat(network: nn.Module, pixels: torch.Tensor, mean_std: tuple[float, float]) -> GraphModule:
    """Return the network with simulated rounding where `quantize` will round; its parameters keep their names.

    Batch norm runs on its running statistics: torchao puts batch statistics in, which train the weights for a scale
    that the exported file, with batch norm folded, does not have. It is traced as at inference, so without dropout.
    Rounding is that of FakeQuantize: the quicker fused one gives a tensor that is nowhere negative a zero point of -128
    and half the step, whatever was asked for, and the weights learn for a file that TensorRT would refuse.

    Args:
        pixels: uint8 (N, H, W), N > 1, to trace with and to begin the ranges from.
    """
    activation = FakeQuantize.with_args(observer=MovingAverageMinMaxObserver, eps=EPS)
    weight = FakeQuantize.with_args(observer=MovingAveragePerChannelMinMaxObserver, eps=EPS)
    example = normalise(to_unit(pixels), *mean_std)
    batch = torch.export.Dim("batch", min=2, max=65536)
    with warnings.catch_warnings(action="ignore"):
        traced = torch.export.export(network.eval(), (example,), dynamic_shapes=({0: batch},)).module()
        rounded: GraphModule = prepare_qat_pt2e(traced, Int8Quantizer(activations(activation), weights(weight)))
    for node in rounded.graph.nodes:
        if node.target == torch.ops.aten.batch_norm.default:
            node.update_arg(TRAINING_OF_BATCH_NORM, False)
    rounded.recompile()
    with torch.no_grad():
        rounded(example)
    return rounded


def _losses(rounded: nn.Module, teacher: nn.Module, recipe: Recipe, batches: Batches) -> Iterator[torch.Tensor]:
    """Yield the loss of every batch of one pass: how far the rounded network's answers are from the float one's."""
    order = torch.randperm(len(batches.labels))
    for step in range(len(batches.labels) // recipe.batch_size):
        chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
        inputs = batch_inputs(recipe, batches, chosen)[0]
        with torch.no_grad():
            target = F.log_softmax(teacher(inputs), dim=1)
        yield F.kl_div(F.log_softmax(rounded(inputs), dim=1), target, reduction="batchmean", log_target=True)


@torch.no_grad()
def _predict(rounded: nn.Module, images: torch.Tensor, batch: int) -> np.ndarray[Any, Any]:
    """Return logits float32 (N, classes); as `predict`, for a traced module, which has no modes."""
    parts = list(images.split(batch))
    if len(parts) > 1 and len(parts[-1]) == 1:  # traced for two and more
        parts[-2:] = [torch.cat(parts[-2:])]
    return torch.cat([rounded(part).float() for part in parts]).numpy()


def _take_weights(network: nn.Module, rounded: nn.Module) -> None:
    """Copy the parameters back; running statistics have not moved."""
    learned = dict(rounded.named_parameters())
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.copy_(learned[name])


def _report(
    source: Checkpoint, tuned: Checkpoint, split: Split, images: torch.Tensor, labels: np.ndarray[Any, Any]
) -> dict[str, Any]:
    """Measure both checkpoints on the validation part, in float and quantised as `hwr-export quantize` does it."""
    raw = split.data.images[split.validation]
    calibration = split.train[even_order(split.data.labels[split.train], 0)[:CALIBRATION]]
    before = predict(source.module, images)
    rows = {}
    for name, checkpoint in (("before", source), ("after", tuned)):
        spec = checkpoint.info.spec()
        program = program_from_network(checkpoint.module, spec)
        scales = checkpoint.info.activation_scales
        observer: Observer = TRAINED if scales else "min-max"
        quantized = int8_program(program, spec, split.data.images[calibration], observer, scales or ()).module()
        with torch.no_grad():
            parts = [quantized(batch)[0] for batch in torch.tensor(raw).split(spec.max_batch)]
        for precision, logits in (("float", predict(checkpoint.module, images)), ("int8", torch.cat(parts).numpy())):
            rows[f"{precision} {name}"] = {
                "accuracy": float((logits.argmax(1) == labels).mean()),
                "flips": int((logits.argmax(1) != before.argmax(1)).sum()),
                "divergence": divergence(before, logits),
            }
    return {
        "schema": 1,
        "parameters": source.info.parameters,
        "float_weights_sha256": source.info.weights.sha256,
        "weights_sha256": tuned.info.weights.sha256,
        "epoch": tuned.info.metrics["epoch"],
        "validation": {"data": split.data.name, "n": len(labels)},
        "rows": rows,
    }


def _refuse_other_data(source: Checkpoint, split: Split, path: Path) -> None:
    """Refuse data of which another part was held out: the network would be validated on what it has learned."""
    recorded = (source.info.data or {}).get("validation", {}).get("sha256")
    if recorded != split.description["validation"]["sha256"]:
        raise DataError(
            f"the validation part of {split.data.name} is not the one that {path} was held away from in training; give "
            "the data it was trained with, or train it anew"
        )


def _recipe(source: Checkpoint, path: Path) -> Recipe:
    if source.info.kind != "architecture" or source.info.recipe is None:
        raise UsageError(f"{path} does not come from one of our recipes; what it was trained on is not known here")
    try:
        return Recipe.model_validate(source.info.recipe)
    except ValidationError as err:
        first = err.errors()[0]
        raise UsageError(
            f"{path} holds a recipe of another version ({first['loc'][0]}: {first['msg']}); train it anew"
        ) from err
