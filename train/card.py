"""Run directory -> `MODEL_CARD.md` and `curves.png`: what the checkpoint is, how it was made, what was measured.

From the run's own files alone; what is not there yet is named with the command that makes it.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from hwr_export.checkpoint import CHECKPOINT_JSON, CheckpointInfo, read_info
from hwr_export.errors import DataError, UsageError
from hwr_export.files import write_atomic
from hwr_export.release import MANIFEST, MODEL_CARD
from train.charts import CONFUSION, CURVES, RISK_COVERAGE, curves_png
from train.evaluate import EVALUATION
from train.run_directory import METRICS

LAST_EPOCHS = 3
# Settings of a recipe that a reader asks for first, as far as it has them; recipe.yaml holds all.
SETTINGS = (
    "epochs", "batch_size", "optimizer", "learning_rate", "schedule", "early_stop_epochs", "weight_decay",
    "label_smoothing", "garbage_weight", "max_accepted_error", "augment", "distil", "fine_tune",
)  # fmt: skip


def write_card(run_dir: Path) -> Path:
    """Write the card of a run, and its curves where metrics were kept; return the card.

    Raises:
        UsageError: the directory is a release.
        CheckpointError: there is no checkpoint in the directory.
        DataError: metrics or an evaluation in it cannot be read.
    """
    if (run_dir / MANIFEST).is_file():
        raise UsageError(f"{run_dir} is a release, whose card `hwr-export` writes; give the run directory of `fit`")
    info = read_info(run_dir / CHECKPOINT_JSON)
    records = _records(run_dir / METRICS)
    if records:
        write_atomic(run_dir / CURVES, curves_png(records, info.metrics.get("epoch")))
    evaluation = _evaluation(run_dir / EVALUATION)
    others = [found for path in sorted(run_dir.glob(f"*/{EVALUATION}")) if (found := _evaluation(path))]
    pictures = [name for name in (CONFUSION, RISK_COVERAGE) if (run_dir / name).is_file()]
    card = run_dir / MODEL_CARD
    write_atomic(card, _render(info, records, evaluation, others, pictures).encode())
    return card


def _render(
    info: CheckpointInfo,
    records: list[dict[str, Any]],
    evaluation: dict[str, Any] | None,
    others: list[dict[str, Any]],
    pictures: list[str],
) -> str:
    others = [other for other in others if _is_of(other, info)]
    parts = [
        f"# {info.name}",
        (
            f"A recogniser of {len(info.labels)} handwritten characters, one an image: `{info.labels}`. Architecture "
            f"`{info.architecture}`, {info.parameters:,} parameters, weights `{info.weights.file}`. Generated from "
            "the run's own files; do not edit."
        ),
        "## Intended use and limits",
        _use(info),
        "## Data",
        _data(info.data),
        "## Recipe",
        _recipe(info),
        "## Training",
        _training(info, records),
        "## Calibration and rejection",
        _calibration(info),
        "## Evaluation",
        _evaluated(info, evaluation, pictures),
        _elsewhere(others),
        "## Reproduction",
        (
            f"`python -m train fit recipe.yaml -o runs/{info.name}` with the `recipe.yaml` of this directory, then "
            f"`python -m train evaluate runs/{info.name} -o runs/{info.name}`. Made with "
            + ", ".join(f"{name} {version}" for name, version in info.versions.items())
            + "; other versions and processors may round differently."
            if info.recipe
            else "Not made by `python -m train fit`: how to make it again is not recorded."
        ),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _use(info: CheckpointInfo) -> str:
    p = info.preprocessing
    if (info.recipe or {}).get("garbage_weight"):
        garbage = "the network was trained to be unsure of some kinds of it (`garbage_weight`)"
    else:
        garbage = "nothing of the kind was part of a recorded training"
    return (
        f"Input: uint8 (N, {p.height}, {p.width}), white ink on black, centred as `hwr-export read` does it. Meant for "
        "single, separated characters of the label set; not for cursive words. The answer is always one of the "
        "labels: what is no character is only kept out by a low confidence, and "
        f"{garbage}. Other hands, pens and cameras than those of the training data mean more errors; figures from one "
        "source promise nothing about another."
    )


def _data(data: dict[str, Any] | None) -> str:
    if not data:
        return "Not recorded."
    rows = [
        (part, f"{data[part]['n']:,}", f"`{data[part]['sha256'][:16]}`")
        for part in ("train", "validation", "test")
        if part in data
    ]
    text = f"`{data['name']}`, sha256 `{data['sha256'][:16]}`; validation part: {data['split']}"
    if "test_split" in data:
        text += f"; test part: {data['test_split']}"
    removed = sum((data.get("overlap_removed") or {}).values())
    if removed:
        text += f"; {removed:,} images left out because a later part holds them too"
    return f"{text}.\n\n{_table(('part', 'images', 'sha256'), rows)}"


def _recipe(info: CheckpointInfo) -> str:
    if not info.recipe:
        return "None: the weights came from elsewhere."
    rows = [(key, _setting(info.recipe[key])) for key in SETTINGS if info.recipe.get(key) is not None]
    rows.append(("seed", info.seed))
    rows += [(f"learned from ({role})", f"`{sha256[:16]}`") for role, sha256 in info.parents.items()]
    return f"`{info.recipe['name']}`; `recipe.yaml` holds every setting.\n\n" + _table(("setting", "value"), rows)


def _setting(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_setting(inner)}" for key, inner in value.items() if inner is not None)
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _training(info: CheckpointInfo, records: list[dict[str, Any]]) -> str:
    if not records:
        return "No metrics were kept."
    best = info.metrics.get("epoch")
    last = {record["epoch"] for record in records[-LAST_EPOCHS:]}
    rows = [
        (
            f"{r['epoch']}{' (kept)' if r['epoch'] == best else ''}",
            f"{r['train_loss']:.4f}",
            f"{r['validation_loss']:.4f}",
            f"{100 * r['validation_accuracy']:.2f} %",
            f"{r['learning_rate']:.2g}",
        )
        for r in records
        if r["epoch"] in last | {1, best}
    ]
    columns = ("epoch", "training loss", "validation loss", "validation accuracy", "learning rate")
    return (
        f"{len(records)} epochs; the best on validation is kept.\n\n{_table(columns, rows)}\n\n"
        f"![Loss, validation error and learning rate by epoch]({CURVES})"
    )


def _calibration(info: CheckpointInfo) -> str:
    metrics = info.metrics
    text = (
        f"Logits are divided by the temperature {info.temperature:.4f}, fitted on validation, so that a confidence of "
        "90 % means nine right answers in ten there."
    )
    if "validation_ece" in metrics:
        text += f" Expected calibration error on validation: {_percent(metrics['validation_ece'])}"
        if "validation_ece_before_temperature" in metrics:
            text += f" ({_percent(metrics['validation_ece_before_temperature'])} before)"
        text += "."
    if not info.reject_below:
        return f"{text}\n\nNo rejection threshold: every answer is accepted."
    text += (
        f"\n\nAnswers with a confidence below {info.reject_below:.4f} are rejected: blank beats wrong. It is the "
        "lowest threshold at which the accepted validation images hold the error that the recipe allows "
        f"({_percent((info.recipe or {}).get('max_accepted_error'))})."
    )
    if "validation_rejected" in metrics:
        text += (
            f" There, {_percent(metrics['validation_rejected'])} are rejected and "
            f"{_percent(metrics['validation_error_accepted'], 3)} of the accepted are wrong."
        )
    return text


def _evaluated(info: CheckpointInfo, evaluation: dict[str, Any] | None, pictures: list[str]) -> str:
    command = "`python -m train evaluate RUN -o RUN`, RUN being this directory"
    if evaluation is None:
        return f"Not evaluated yet: run {command}."
    if not _is_of(evaluation, info):
        return f"The {EVALUATION} in this directory is of other weights: run {command}."
    by = f"; intervals clustered by {evaluation['ci95_clustered_by']}" if evaluation["ci95_clustered_by"] else ""
    rows = [("accuracy", _percent(evaluation["accuracy"]), _range(evaluation["ci95"]))]
    if evaluation["top3_accuracy"] is not None:
        rows.append(("right one among the best three", _percent(evaluation["top3_accuracy"]),
                     _range(evaluation["top3_ci95"])))  # fmt: skip
    if evaluation["merged_accuracy"] is not None:
        rows.append(("accuracy, look-alike cases as one", _percent(evaluation["merged_accuracy"]),
                     _range(evaluation["merged_ci95"])))  # fmt: skip
    rows += [
        ("calibration error, before temperature", _percent(evaluation["ece_before_temperature"]), ""),
        ("calibration error, after", _percent(evaluation["ece"]), ""),
        ("rejected at the threshold", _percent(evaluation["rejected"]), ""),
        ("wrong among the accepted", _percent(evaluation["error_accepted"], 3), ""),
        *((f"wrong when {share} are rejected", f"{_percent(p['error'], 3)} ({p['wrong']:,} of {p['accepted']:,})", "")
          for share, p in evaluation["at_rejection"].items()),
        ("area under the risk-coverage curve", f"{evaluation['aurc']:.2g}", ""),
    ]  # fmt: skip
    thresholds = evaluation["garbage"]["thresholds"]
    garbage = [
        (kind, f"{row['n']:,}", row["most_often"], *(_percent(row["accepted"][name]) for name in thresholds))
        for kind, row in evaluation["garbage"]["kinds"].items()
    ]
    at = [f"at {t:.4f} ({'shipped' if name == 'shipped' else f'rejects {name}'})" for name, t in thresholds.items()]
    return "\n\n".join(
        [
            *([f"**{evaluation['warning']}.**"] if evaluation["warning"] else []),
            f"On {evaluation['n']:,} test images of `{evaluation['data']}`, with {evaluation['backend']}{by}.",
            _table(("measure", "value", "95 % interval"), rows),
            *(f"![{name.removesuffix('.png')}]({name})" for name in pictures),
            (
                "Images that are no character of the label set, and how many of them are accepted as one. The model is "
                "asked about all of them; `hwr-export read` finds an empty field before it asks."
            ),
            _table(("kind", "n", "most often", *at), garbage),
        ]
    )


def _elsewhere(others: list[dict[str, Any]]) -> str:
    """Return the table of evaluations in folders of the run, on other data."""
    if not others:
        return ""
    rows = [
        (f"`{o['data']}`", f"{o['n']:,}", _percent(o["accuracy"]), _range(o["ci95"]), o["warning"] or "")
        for o in others
    ]
    return "### On other data\n\n" + _table(("data", "images", "accuracy", "95 % interval", ""), rows)


def _is_of(evaluation: dict[str, Any], info: CheckpointInfo) -> bool:
    return bool(evaluation["weights_sha256"] == info.weights.sha256)


def _records(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text().splitlines() if path.is_file() else []
    records = []
    for i, line in enumerate(lines):
        record = _json(line, f"line {i + 1} of {path}")
        missing = {"epoch", "train_loss", "validation_loss", "validation_accuracy", "learning_rate"} - record.keys()
        if missing:
            raise DataError(f"line {i + 1} of {path} lacks {', '.join(sorted(missing))}; train again with --resume")
        records.append(record)
    return records


def _evaluation(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    found = _json(path.read_text(), str(path))
    if not {"weights_sha256", "garbage", "at_rejection"} <= found.keys():
        raise DataError(f"{path} is not an evaluation that this version wrote; evaluate again")
    return found


def _json(text: str, where: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as err:
        raise DataError(f"{where} is not JSON ({err}); it may be cut off: make it again") from err
    if not isinstance(found, dict):
        raise DataError(f"{where} is {type(found).__name__}, expected a JSON object")
    return found


def _percent(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{100 * value:.{digits}f} %"


def _range(interval: Sequence[float]) -> str:
    return f"{100 * interval[0]:.2f} to {100 * interval[1]:.2f} %"


def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)
