"""Deployed checkpoint + newly labelled crops -> the checkpoint to ship: the renewed one if it earned it, else the old.

The renewed model starts from the old one and sees old and new images in every batch; old are also the new ones of every
renewal before. It is promoted only when a paired test on held-out images says that it is better on the new and, within
a margin, no worse on the old.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from hwr_export.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from hwr_export.datasets import Dataset, load_labelled
from hwr_export.errors import DataError, UsageError
from hwr_export.files import json_bytes, write_atomic
from hwr_export.paired import PairedDifference, paired_difference
from hwr_export.runners.eager import EagerRunner
from hwr_export.spec import PROBABILITIES
from train.data import Split, load_test, split_training_data
from train.fit import fit_split
from train.recipe import FineTuneRecipe, Recipe
from train.splits import contents, hold_out

RENEWAL = "renewal.json"
CANDIDATE = "candidate"
TEST_FRACTION, VALIDATION_FRACTION = 0.3, 0.15


def renew(
    path: Path,
    new_data: Path,
    out: Path,
    data_root: Path | None,
    console: Console,
    *,
    replay: Sequence[Path] = (),
    epochs: int = 5,
    new_share: float = 0.5,
    margin: float = 0.001,
    resume: bool = False,
) -> dict[str, Any]:
    """Train, compare, and leave in `out` the checkpoint to ship, `renewal.json`, and the candidate's run.

    Args:
        path: checkpoint of one of our recipes, whose data are still there.
        new_data: folder of images per class, or CSV, with the checkpoint's labels.
        replay: what earlier renewals took as new, each of them.
        new_share: share of new images in a batch; the rest is replay of the old.
        margin: accuracy that the renewed model may lose on the old test images, as a fraction.

    Raises:
        UsageError: `out` is taken, or the checkpoint has no recipe.
        DataError: the old data are not those it was trained on, or the new cannot be used.
    """
    if out.exists() and not resume and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not empty; pass --resume to continue a renewal, or choose another -o")
    old = load_checkpoint(path)
    recipe = _recipe(old, path, epochs)
    known = Recipe.model_validate(old.info.recipe)
    before = split_training_data(known.data, data_root)
    if old.info.data is None or old.info.data["train"] != before.description["train"]:
        raise DataError(f"{known.data.name} is not what {path} was trained on any more (its hash differs)")
    before_test = load_test(known.data, data_root)
    shape = (old.info.preprocessing.height, old.info.preprocessing.width)
    renewals = old.info.data.get("renewals", [])
    for earlier in _replayed(replay, renewals, old, shape):
        before, before_test = _with_earlier(before, before_test, earlier, known.data.split_seed)
    fresh = load_labelled(new_data, old.info.labels, shape)
    parts = _parts(fresh, [before.data, before_test], known.data.split_seed)
    split, weights = _joined(before, fresh, parts, new_share, renewals)
    mean_std = (old.info.preprocessing.mean, old.info.preprocessing.std)
    fit_split(recipe, split, out / CANDIDATE, data_root, resume, console, weights=weights, mean_std=mean_std)
    renewed = load_checkpoint(out / CANDIDATE)

    console.print(f"comparing both on {len(before_test):,} old and {len(parts['test']):,} new test images")
    on_old = _compare(renewed, old, before_test)
    on_new = _compare(renewed, old, _part(fresh, parts["test"]))
    reasons = _reasons(on_old, on_new, margin)
    shipped = old if reasons else renewed
    save_checkpoint(out, shipped.info, shipped.weights)
    report = {
        "schema": 1,
        "promoted": not reasons,
        "reasons": reasons,
        "margin": margin,
        "confidence": 0.95,
        "old_checkpoint": old.info.weights.sha256,
        "new_checkpoint": renewed.info.weights.sha256,
        "new_data": {"sha256": fresh.sha256} | {name: len(indices) for name, indices in parts.items()},
        "on_old": on_old,
        "on_new": on_new,
    }
    write_atomic(out / RENEWAL, json_bytes(report))
    return report


def _recipe(old: Checkpoint, path: Path, epochs: int) -> Recipe:
    """Return how to train on: all parts, slower below, a fifth of the rate the model was made with."""
    if old.info.kind != "architecture" or old.info.recipe is None:
        raise UsageError(f"{path} was not made by `python -m train fit`; only such a checkpoint can be renewed here")
    first = Recipe.model_validate(old.info.recipe)
    return first.model_copy(
        update={
            "name": f"{first.name.removesuffix('-renewed')}-renewed",
            "epochs": epochs,
            "learning_rate": first.learning_rate / 5,
            "schedule": "cosine",
            "early_stop_epochs": None,
            "precision": "auto",  # of this machine, which may be another
            "distil": None,
            "model": first.model.model_copy(update={"weights": None}),
            "fine_tune": FineTuneRecipe(checkpoint=str(path), train_from="all", lr_decay=0.7),
        }
    )


def _replayed(
    replay: Sequence[Path], renewals: list[dict[str, Any]], old: Checkpoint, shape: tuple[int, int]
) -> list[Dataset]:
    """Load what earlier renewals took as new, in their order.

    Raises:
        DataError: one of them is not there, or something is that none of them took.
    """
    given = {data.sha256: data for data in (load_labelled(path, old.info.labels, shape) for path in replay)}
    wanted = [renewal["sha256"] for renewal in renewals]
    missing, surplus = [w for w in wanted if w not in given], sorted(set(given) - set(wanted))
    if missing:
        raise DataError(
            f"the checkpoint was renewed before, with {len(missing)} set(s) of images that are not given "
            f"(sha256 {', '.join(m[:12] for m in missing)}…) and would be forgotten; name each with --replay"
        )
    if surplus:
        raise DataError(
            f"--replay names {len(surplus)} set(s) of images that no renewal of this checkpoint took (sha256 "
            f"{', '.join(x[:12] for x in surplus)}…); new images go to --new-data"
        )
    return [given[sha256] for sha256 in wanted]


def _with_earlier(before: Split, test: Dataset, earlier: Dataset, seed: int) -> tuple[Split, Dataset]:
    """Add an earlier renewal's images to the old ones, divided as they were then."""
    parts = _parts(earlier, [before.data, test], seed)
    joined, offset = _concatenated(before.data, earlier), len(before.data)
    train = np.concatenate([before.train, parts["train"] + offset])
    validation = np.concatenate([before.validation, parts["validation"] + offset])
    return Split(joined, train, validation, before.description), _concatenated(test, _part(earlier, parts["test"]))


def _concatenated(first: Dataset, second: Dataset) -> Dataset:
    """Join two datasets; writers of the one are not those of the other, and are none where either has none."""
    writers = None
    if first.writers is not None and second.writers is not None:
        writers = np.concatenate([first.writers, second.writers + first.writers.max() + 1])
    return replace(
        first,
        images=np.concatenate([first.images, second.images]),
        labels=np.concatenate([first.labels, second.labels]),
        writers=writers,
    )


def _parts(fresh: Dataset, known: Iterable[Dataset], seed: int) -> dict[str, np.ndarray[Any, Any]]:
    """Divide the new images into train, validation and test, and refuse those that the old data already hold."""
    content = contents(fresh.images)
    repeated = len(set(content) & set().union(*(contents(d.images) for d in known)))
    if repeated:
        raise DataError(f"{repeated} of the new images are among the old ones already; leave them out")
    rng = np.random.default_rng(seed)
    test, _ = hold_out(fresh.labels, fresh.writers, content, TEST_FRACTION, rng)
    rest = np.flatnonzero(~test)
    writers = None if fresh.writers is None else fresh.writers[rest]
    share = VALIDATION_FRACTION / (1 - TEST_FRACTION)
    held_out, _ = hold_out(fresh.labels[rest], writers, [content[i] for i in rest], share, rng)
    parts = {"train": rest[~held_out], "validation": rest[held_out], "test": np.flatnonzero(test)}
    for name, indices in parts.items():
        if not len(indices):
            raise DataError(f"the {len(fresh)} new images leave none for {name}; label more")
    return parts


def _joined(
    before: Split,
    fresh: Dataset,
    parts: dict[str, np.ndarray[Any, Any]],
    new_share: float,
    renewals: list[dict[str, Any]],
) -> tuple[Split, np.ndarray[Any, Any]]:
    """Join old and new into one split and say how often each training image is drawn."""
    offset = len(before.data)
    data = _concatenated(before.data, fresh)
    train = np.concatenate([before.train, parts["train"] + offset])
    validation = np.concatenate([before.validation, parts["validation"] + offset])
    weights = np.concatenate(
        [
            np.full(len(before.train), (1 - new_share) / len(before.train)),
            np.full(len(parts["train"]), new_share / len(parts["train"])),
        ]
    )
    new = {"sha256": fresh.sha256, "share": new_share} | {name: len(i) for name, i in parts.items()}
    description = before.description | {"renewals": [*renewals, new]}
    return Split(data, train, validation, description), weights


def _part(data: Dataset, indices: np.ndarray[Any, Any]) -> Dataset:
    writers = None if data.writers is None else data.writers[indices]
    return replace(data, images=data.images[indices], labels=data.labels[indices], writers=writers)


def _compare(renewed: Checkpoint, old: Checkpoint, data: Dataset) -> dict[str, Any]:
    right = []
    for checkpoint in (renewed, old):
        with EagerRunner(checkpoint, checkpoint.info.spec()) as runner:
            right.append(runner.infer_all(data.images)[PROBABILITIES].argmax(1) == data.labels)
    found: PairedDifference = paired_difference(right[0], right[1], data.writers)
    return {"accuracy_new": float(right[0].mean()), "accuracy_old": float(right[1].mean())} | asdict(found)


def _reasons(on_old: dict[str, Any], on_new: dict[str, Any], margin: float) -> list[str]:
    """Return what speaks against promotion; nothing promotes."""
    reasons = []
    if on_new["lower"] <= 0:
        reasons.append(
            f"not shown better on the new images: {on_new['fixed']} fixed, {on_new['broken']} broken of {on_new['n']}, "
            f"lower bound {100 * on_new['lower']:+.2f} points"
        )
    if on_old["lower"] <= -margin:
        reasons.append(
            f"not shown to keep the old within {100 * margin:g} points: {on_old['fixed']} fixed, {on_old['broken']} "
            f"broken of {on_old['n']}, lower bound {100 * on_old['lower']:+.2f} points"
        )
    return reasons
