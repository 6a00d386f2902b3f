"""One file on one backend + the baseline -> its cell of `parity.json`: three layers, verdict, stage at fault."""

import json
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from hwr_export.answers import describe_answers, flipped_images
from hwr_export.baseline import Baseline, Reference
from hwr_export.bisection import bisect
from hwr_export.decisions import compare_decisions
from hwr_export.errors import ParityError, RunnerError
from hwr_export.files import sha256_bytes
from hwr_export.goldens import SYNTHETIC
from hwr_export.guards import try_batches, unpinned_facts
from hwr_export.numbers import UNIT_RATIO, Tolerance, compare_outputs, tolerance_from_goldens
from hwr_export.release import CHECKPOINT, ManifestFile, Release
from hwr_export.robustness import Condition, Robustness, compare_conditions
from hwr_export.runners import ONNX_BACKENDS, Runner, onnx_runner
from hwr_export.runners.trt import SOURCE
from hwr_export.spec import LOGITS
from hwr_export.stages import Finding, Suspect, locate
from hwr_export.statistics import rate_upper_bound
from hwr_export.task import compare_task, rate_json
from hwr_export.verdict import Evidence, judge

# Logits of an integer file may move by this share of the largest where another batch carries a value across a step.
INTEGER_BATCH_SLACK = 0.02
SHOWN = ("answers", "flipped")
UNKNOWN_UNLESS_RUN = (
    *("accuracy", "accuracy_delta_pt", "delta_ci_pt", "flips", "flip_rate_upper95"),
    *("max_abs_logit_diff", "mean_abs_logit_diff", "numbers", "decisions", "task", "corruptions"),
    *SHOWN,
)
NOT_GATED = "an integer file moves every number: differences are reported, decisions and the task decide"


@dataclass(frozen=True)
class Question:
    """What is asked of every file: the loss of accuracy it may bring, a fraction; and whether to look for the layer."""

    margin: float
    bisect: bool = False


def judge_file(
    release: Release, model: ManifestFile, backend: str, baseline: Baseline, question: Question
) -> dict[str, Any]:
    """Compare one file on one backend with the baseline. A file that cannot be loaded or run is a FAIL."""
    data = release.read_unverified(model)
    precision = ONNX_BACKENDS[backend].computes or model.precision or "fp32"
    tolerance = _tolerance(baseline, precision)
    broken, fault = [], None
    if sha256_bytes(data) != model.sha256:
        broken.append(f"{model.path} is not the file the manifest vouches for (sha256 {sha256_bytes(data)[:12]}…)")
        fault = "changed file"
    head: dict[str, Any] = {
        "backend": backend,
        "precision": model.precision,
        "file": {"path": model.path, "sha256": sha256_bytes(data)},
    }
    try:
        with onnx_runner(backend, data, release.spec) as runner:
            head["backend_version"] = runner.version()
            unpinned, unpinned_fault = unpinned_facts(runner.metadata(), release)
            broken, fault = [*broken, *unpinned], unpinned_fault or fault
            cell = _measured(runner, precision, baseline, tolerance, broken, question)
    except RunnerError as err:
        cell = _not_run(baseline.reference, tolerance, [*broken, str(err)], question)
    if cell["verdict"] != "FAIL":
        return head | cell | {"stage": None, "fault": None, "stage_reason": None}
    suspect = _suspect(release, data, precision, backend)
    found = _located(suspect, release, baseline)
    # A fault seen in the answers says more than that the bytes are others.
    named = fault if fault in ("swapped labels", "stale file") else found.fault or fault
    cell |= {"stage": found.stage, "fault": named, "stage_reason": found.why}
    if question.bisect:
        cell["bisect"] = _bisected(suspect, found, release, baseline)
    return head | cell


def judge_plan(
    model: ManifestFile,
    path: str,
    sha256: str,
    runner: Runner,
    baseline: Baseline,
    question: Question,
    problem: str = "",
) -> dict[str, Any]:
    """Compare the plan of an ONNX file, on what executes it, with the baseline. One that cannot be run is a FAIL.

    Args:
        path: of the plan.
        sha256: of the plan.
        problem: why it is not to be loaded, which is a FAIL too.
    """
    precision = model.precision or "fp32"
    tolerance = _tolerance(baseline, precision)
    head: dict[str, Any] = {
        "backend": runner.backend,
        "precision": model.precision,
        "file": {"path": path, "sha256": sha256},
    }
    why = "a plan cannot be looked into; its ONNX file has cells of its own"
    failed = {"stage": None, "fault": None, "stage_reason": why}
    if problem:
        return head | _not_run(baseline.reference, tolerance, [problem], question) | failed
    try:
        with runner:
            head["backend_version"] = runner.version()
            source = runner.metadata().get(SOURCE, "")
            other = f"the plan was built from another file ({source[:12]}…) than {model.path} ({model.sha256[:12]}…)"
            broken = [] if source == model.sha256 else [other]
            cell = _measured(runner, precision, baseline, tolerance, broken, question)
    except RunnerError as err:
        cell = _not_run(baseline.reference, tolerance, [str(err)], question)
    return head | cell | (failed if cell["verdict"] == "FAIL" else dict.fromkeys(failed))


def _tolerance(baseline: Baseline, precision: str) -> Tolerance | None:
    """Return how far logits may be off; None for an integer file."""
    return tolerance_from_goldens(baseline.goldens, precision, baseline.noise) if precision in UNIT_RATIO else None


def _measured(
    runner: Runner,
    precision: str,
    baseline: Baseline,
    tolerance: Tolerance | None,
    broken: list[str],
    question: Question,
) -> dict[str, Any]:
    largest = float(np.abs(baseline.goldens.logits).max())
    slack = tolerance.value if tolerance else INTEGER_BATCH_SLACK * largest
    batches, problems = try_batches(runner, baseline.reference.images, slack)
    golden = found = _compared(runner, baseline.golden, precision, tolerance, question)
    if baseline.kind == "eager":
        found = _compared(runner, baseline.reference, precision, tolerance, question)
        problems += [f"goldens: {reason}" for reason in _golden_problems(golden)]
    if found.decisions:
        found = replace(found, robustness=_robustness(runner, baseline, question))
    found = replace(found, broken=(*broken, *problems))
    verdict, reasons = judge(found)
    return _cell_json(found, baseline.reference, question) | {
        "verdict": verdict,
        "needed_n": _needed_n(found) if verdict == "UNDECIDED" else 0,
        "goldens": {
            "n": golden.n,
            "agreement": golden.n - golden.decisions.flips if golden.decisions else 0,
            "max_abs_logit_diff": golden.numbers.outputs[LOGITS].max,
        },
        "batches": batches,
        "reasons": reasons,
    }


def _compared(
    runner: Runner, reference: Reference, precision: str, tolerance: Tolerance | None, question: Question
) -> Evidence:
    """Run the reference's images and take the measure of all three layers."""
    spec = runner.spec
    outputs = runner.infer_all(reference.images)
    numbers = compare_outputs(reference.outputs, outputs, spec.temperature, precision)
    evidence = Evidence(len(reference.images), precision, numbers, tolerance)
    if not numbers.usable:
        return evidence
    return replace(
        evidence,
        decisions=compare_decisions(reference.outputs, outputs, reference.labels, spec.labels),
        task=compare_task(
            reference.outputs, outputs, reference.labels, reference.writers, spec.reject_below, question.margin
        ),
        shown={
            "answers": describe_answers(outputs, reference.labels, reference.writers),
            "flipped": flipped_images(reference.outputs, outputs, reference.images, reference.labels),
        },
    )


def _golden_problems(golden: Evidence) -> list[str]:
    """Return what the goldens alone refuse a file for; they are too few to judge the task by."""
    verdict, reasons = judge(replace(golden, task=None))
    return reasons if verdict == "FAIL" else []


def _robustness(runner: Runner, baseline: Baseline, question: Question) -> Robustness | None:
    if not baseline.corrupted:
        return None
    answers = [
        Condition(c.kind, c.strength, c.answers, runner.infer_all(c.images)[LOGITS].argmax(axis=1))
        for c in baseline.corrupted
    ]
    reference = baseline.reference
    writers = None if reference.writers is None else reference.writers[baseline.chosen]
    return compare_conditions(answers, reference.labels[baseline.chosen], writers, question.margin)


def _cell_json(found: Evidence, reference: Reference, question: Question) -> dict[str, Any]:
    decisions, task, tolerance = found.decisions, found.task, found.tolerance
    logits = found.numbers.outputs[LOGITS]
    agreement = found.n - decisions.flips if decisions else 0
    accuracy = rate_json(task.accuracy) if task else None
    return {
        "n": found.n,
        "agreement": agreement,
        "agreement_rate": agreement / found.n,
        "flip_rate_upper95": rate_upper_bound(found.n - agreement, found.n),
        "accuracy": _accuracy(reference, task.accuracy.found.difference if task else None),
        "eager_accuracy": _accuracy(reference, 0.0),
        "accuracy_delta_pt": accuracy and accuracy["delta_pt"],
        "delta_ci_pt": accuracy and accuracy["ci_pt"],
        "margin_pt": 100 * question.margin,
        "flips": {"total": decisions.flips, **decisions.directions} if decisions else None,
        "max_abs_logit_diff": logits.max,
        "mean_abs_logit_diff": logits.mean,
        "tolerance": tolerance.value if tolerance else None,
        "tolerance_reason": tolerance.reason if tolerance else NOT_GATED,
        "numbers": {"gated": tolerance is not None, **found.numbers.as_json()},
        "decisions": decisions.as_json() if decisions else None,
        "task": task.as_json() if task else None,
        "corruptions": found.robustness.as_json() if found.robustness else None,
        **(found.shown or dict.fromkeys(SHOWN)),
    }


def _not_run(
    reference: Reference, tolerance: Tolerance | None, reasons: list[str], question: Question
) -> dict[str, Any]:
    return dict.fromkeys(UNKNOWN_UNLESS_RUN) | {
        "verdict": "FAIL",
        "n": 0,
        "agreement": 0,
        "agreement_rate": 0.0,
        "needed_n": 0,
        "eager_accuracy": _accuracy(reference, 0.0),
        "margin_pt": 100 * question.margin,
        "tolerance": tolerance.value if tolerance else None,
        "tolerance_reason": tolerance.reason if tolerance else NOT_GATED,
        "reasons": reasons,
    }


def _needed_n(found: Evidence) -> int | None:
    """Return how many further images would decide what is open, None where no number would."""
    needed = [r.needed_n for r in found.task.rates] if found.task else []
    needed += [found.robustness.needed_n] if found.robustness else []
    known = [n for n in needed if n is not None]
    return max(known) if known and len(known) == len(needed) else None


def _accuracy(reference: Reference, change: float | None) -> float | None:
    """Return the eager model's accuracy plus a change, None where that or every label is unknown."""
    known = reference.labels != SYNTHETIC
    if change is None or not known.any():
        return None
    right = reference.outputs[LOGITS][known].argmax(axis=1) == reference.labels[known]
    return round(float(right.mean()) + change, 12)


def _suspect(release: Release, data: bytes, precision: str, backend: str) -> Suspect:
    floats = [f for f in release.by_role("onnx") if f.precision == "fp32" and precision != "fp32"]
    checkpoint = release.entry(CHECKPOINT)
    kind = json.loads(release.read(checkpoint)).get("kind") if checkpoint else None
    float_model = release.read_unverified(floats[0]) if floats else None
    return Suspect(data, precision, backend, float_model, sees_pixels=kind == "program")


def _located(suspect: Suspect, release: Release, baseline: Baseline) -> Finding:
    try:
        return locate(suspect, release.spec, baseline.goldens)
    except RunnerError as err:
        return Finding(None, None, f"the borders cannot be read: {err}")


def _bisected(suspect: Suspect, found: Finding, release: Release, baseline: Baseline) -> dict[str, Any]:
    try:
        return bisect(suspect, found.stage, release.path, release.spec, baseline.goldens.images)
    except (ParityError, RunnerError) as err:
        return {"problem": str(err)}
