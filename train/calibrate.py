"""Logits on validation -> temperature and rejection threshold, and the checkpoint that carries them.

Validation alone decides; the test split is not known here.
"""

import platform
from typing import Any

import numpy as np
import torch

import hwr_export
from hwr_export.checkpoint import CheckpointInfo, weights_bytes, weights_file
from hwr_export.models import count_parameters
from hwr_export.spec import Preprocessing
from hwr_export.statistics import (
    expected_calibration_error,
    fit_temperature,
    negative_log_likelihood,
    rejection_threshold,
    softmax,
)
from train.data import Split
from train.recipe import Recipe


def calibrated_checkpoint(
    module: torch.nn.Module,
    logits: np.ndarray[Any, Any],
    recipe: Recipe,
    split: Split,
    mean_std: tuple[float, float],
    parents: dict[str, str],
    record: dict[str, Any],
) -> tuple[CheckpointInfo, bytes]:
    """Calibrate: temperature first, then the rejection threshold at that temperature.

    Args:
        module: the network in eval mode, whose weights are kept.
        logits: its float32 (N, classes) on the validation part.
        parents: sha256 of the weights it was made from, by role.
        record: the epoch's metrics.
    """
    labels = split.data.labels[split.validation]
    temperature = round(fit_temperature(logits, labels), 6)
    probabilities = softmax(logits, temperature)
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    threshold = rejection_threshold(confidence, correct, recipe.max_accepted_error)
    accepted = confidence >= threshold
    weights = weights_bytes(module)
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
        parameters=count_parameters(module),
        weights=weights_file(weights),
        parents=parents,
        recipe=recipe.model_dump(by_alias=True),
        data=split.description,
        seed=recipe.seed,
        metrics={
            **record,
            "validation_ece": round(expected_calibration_error(probabilities, labels), 6),
            "validation_ece_before_temperature": round(expected_calibration_error(softmax(logits), labels), 6),
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


def calibrated_loss(logits: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the NLL at the temperature that a checkpoint would carry: how good the deployed probabilities are."""
    return negative_log_likelihood(logits, labels, fit_temperature(logits, labels))
