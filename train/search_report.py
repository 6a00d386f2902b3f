"""Study -> `best.yaml`, `search.json`, `search.png` and a table; of the trials' weights only the winner's stay.

Each file is whole or absent. Losing trials keep their recipe, their metrics and their sheet.
"""

import io
import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hwr_export.checkpoint import CHECKPOINT_JSON
from hwr_export.console import print_table
from hwr_export.files import json_bytes, write_atomic
from train.run_directory import BAD_BATCH, LAST, RECIPE
from train.space import Space

if TYPE_CHECKING:
    import optuna
    from matplotlib.axes import Axes
    from optuna.trial import FrozenTrial

TRIALS = "trials"
BEST = "best.yaml"
SUMMARY = "search.json"
PICTURE = "search.png"
DIVERGED = "failed"
# PED-ANOVA compares the best tenth of the trials with all of them: with fewer, that is one or two.
LEAST_FOR_IMPORTANCE = 30


def trial_name(number: int) -> str:
    """Return the name of a trial's run directory."""
    return f"{number:04d}"


def short(value: Any) -> str:
    """Return a parameter's value as a line or a table shows it."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def state_of(trial: "FrozenTrial") -> str:
    """Return complete, pruned, running, failed (it diverged) or interrupted (its process was stopped or killed)."""
    name = trial.state.name.lower()
    return name if name != "fail" else "failed" if DIVERGED in trial.user_attrs else "interrupted"


def counts(trial: "FrozenTrial") -> bool:
    """Whether a trial is one of those asked for; another takes the place of one that was interrupted."""
    return state_of(trial) in ("complete", "pruned", "running", "failed")


def write_results(study: "optuna.Study", space: Space, out: Path) -> dict[str, Any]:
    """Write `search.json`, and `best.yaml` once there is a best trial; delete what losing trials trained."""
    found = summary(study, space, out)
    best = found["best"]
    for trial in found["trials"]:
        if trial["state"] != "running" and (best is None or trial["number"] != best["trial"]):
            run = out / TRIALS / trial_name(trial["number"])
            for path in (
                run / LAST,
                run / CHECKPOINT_JSON,
                run / BAD_BATCH,
                *run.glob("weights-*"),
                *run.glob("*.part"),
            ):
                path.unlink(missing_ok=True)
    if best is not None:
        n = sum(found["n"].values())
        note = (
            f"# Trial {best['trial']} of {n} of the study {space.name} (space sha256 {space.sha256}): validation loss "
            f"{best['value']:.6f}, calibrated.\n"
        )
        recipe = (out / TRIALS / trial_name(best["trial"]) / RECIPE).read_bytes()
        write_atomic(out / BEST, note.encode() + recipe)
    write_atomic(out / SUMMARY, json_bytes(found))
    return found


def summary(study: "optuna.Study", space: Space, out: Path) -> dict[str, Any]:
    """Return the study as one JSON document."""
    trials = _rows(study, space)
    complete = [t for t in trials if t["state"] == "complete"]
    best = min(complete, key=lambda t: t["value"], default=None)
    states = ("complete", "pruned", "failed", "interrupted", "running")
    return {
        "schema": 1,
        "study": space.name,
        "space_sha256": space.sha256,
        "data": study.user_attrs["data"],
        "objective": "lowest validation loss over the epochs, at the temperature that minimises it",
        "n": {state: sum(t["state"] == state for t in trials) for state in states},
        "best": best
        and {
            "trial": best["number"],
            "value": best["value"],
            "parameters": best["parameters"],
            "recipe": str(out / BEST),
            "run": str(out / TRIALS / trial_name(best["number"])),
        },
        "importances": _importances(study) if len(complete) >= LEAST_FOR_IMPORTANCE else None,
        "trials": trials,
    }


def print_results(found: dict[str, Any]) -> None:
    """Print the trials, best first, and what the winner is made of; `search.json` has every trial's parameters."""
    order = sorted(found["trials"], key=lambda t: (t["value"] is None, t["value"] or 0, t["number"]))
    rows = [
        (
            str(t["number"]),
            t["state"],
            "-" if t["value"] is None else f"{t['value']:.5f}",
            str(t["epochs"]),
            "-" if t["seconds"] is None else f"{t['seconds']:.0f}",
        )
        for t in order
    ]
    print_table(("trial", "state", "loss", "epochs", "seconds"), rows)
    best = found["best"]
    if best is not None:
        importances = found["importances"] or {}
        rows = [
            (name, short(value), f"{importances[name]:.2f}" if name in importances else "-")
            for name, value in best["parameters"].items()
        ]
        print_table(("parameter", f"in trial {best['trial']}", "importance"), rows, title=f"the best: {best['recipe']}")


def write_picture(study: "optuna.Study", space: Space, out: Path) -> None:
    """Draw the trials in order with the best so far, and the loss against each parameter."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    trials = _rows(study, space)
    ended = [t for t in trials if t["loss"] is not None and t["state"] in ("complete", "pruned")]
    if not ended:
        return
    columns = min(3, 1 + len(space.parameters))
    lines = math.ceil((1 + len(space.parameters)) / columns)
    figure = Figure(figsize=(4.6 * columns, 3.4 * lines), layout="constrained")
    axes = figure.subplots(lines, columns, squeeze=False).flat
    first = next(axes)
    _points(first, [t["number"] for t in ended], ended)
    complete = [t for t in ended if t["state"] == "complete"]
    bests = [min(t["loss"] for t in complete[: i + 1]) for i in range(len(complete))]
    first.step([t["number"] for t in complete], bests, where="post", color="tab:green", label="best so far")
    first.set_xlabel("trial")
    first.xaxis.get_major_locator().set_params(integer=True)
    first.legend(fontsize="small")
    for (key, parameter), axis in zip(space.parameters.items(), axes, strict=False):
        if parameter.choices is None:
            _points(axis, [t["parameters"][key] for t in ended], ended)
            if parameter.log:
                axis.set_xscale("log")
        else:
            _points(axis, [parameter.choices.index(t["parameters"][key]) for t in ended], ended)
            axis.set_xticks(range(len(parameter.choices)), [str(c) for c in parameter.choices])
            axis.set_xlim(-0.5, len(parameter.choices) - 0.5)
        axis.set_xlabel(key)
    losses = [t["loss"] for t in ended]
    for i, axis in enumerate(figure.axes):
        if i > len(space.parameters):
            axis.set_axis_off()
            continue
        if min(losses) > 0 and max(losses) > 5 * min(losses):
            axis.set_yscale("log")
        axis.set_ylabel("validation loss, calibrated")
        axis.grid(alpha=0.3)
    figure.suptitle(f"{space.name}: {len(complete)} complete, {len(ended) - len(complete)} pruned")
    FigureCanvasAgg(figure)
    _save(figure, out / PICTURE)


def _points(axis: "Axes", x: list[Any], trials: list[dict[str, Any]]) -> None:
    best = min((t["loss"] for t in trials if t["state"] == "complete"), default=None)
    for state, marker, colour in (("pruned", "x", "0.6"), ("complete", "o", "tab:blue")):
        of = [(a, t["loss"]) for a, t in zip(x, trials, strict=True) if t["state"] == state]
        if of:
            axis.scatter(*zip(*of, strict=True), marker=marker, color=colour, s=22, label=state)
    of_best = [(a, t["loss"]) for a, t in zip(x, trials, strict=True) if t["state"] == "complete" and t["loss"] == best]
    if of_best:
        axis.scatter(*zip(*of_best, strict=True), marker="*", color="tab:red", s=110, zorder=3, label="best")


def _save(figure: Any, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    write_atomic(path, buffer.getvalue())


def _rows(study: "optuna.Study", space: Space) -> list[dict[str, Any]]:
    return [_row(trial, space) for trial in study.get_trials(deepcopy=False) if trial.state.name != "WAITING"]


def _row(trial: "FrozenTrial", space: Space) -> dict[str, Any]:
    """`value` is the objective of a complete trial; `loss` is that, or the last loss of a trial that ended earlier."""
    state = state_of(trial)
    value = trial.value if state == "complete" else None
    last = trial.intermediate_values.get(trial.last_step) if trial.last_step is not None else None
    return {
        "number": trial.number,
        "state": state,
        "value": value,
        "loss": last if value is None else value,
        "epochs": len(trial.intermediate_values),
        "seconds": None if trial.duration is None else round(trial.duration.total_seconds(), 1),
        "parameters": space.values(trial.params),
        "reason": trial.user_attrs.get(DIVERGED),
    }


def _importances(study: "optuna.Study") -> dict[str, float]:
    """Return each parameter's share in what sets the best tenth of the complete trials apart (PED-ANOVA)."""
    from optuna.importance import get_param_importances

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that few trials say little is in the documentation of the figures
        found = get_param_importances(study)
    return {name: round(share, 4) for name, share in found.items()}
