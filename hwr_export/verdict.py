"""Three layers of evidence -> PASS, FAIL or UNDECIDED, each with its reasons. No I/O, no backend, no torch.

Numbers, decisions and the task, in this order: a float file must be the eager model up to rounding; what rounding does
not explain, and every integer file, must be as good at the task.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hwr_export.decisions import Decisions
from hwr_export.numbers import Numbers, Tolerance, judge_numbers
from hwr_export.robustness import Robustness, judge_robustness
from hwr_export.statistics import rate_upper_bound
from hwr_export.task import Task, judge_task

Verdict = Literal["PASS", "FAIL", "UNDECIDED"]
EXIT_CODE: dict[Verdict, int] = {"PASS": 0, "FAIL": 1, "UNDECIDED": 3}

MIN_IMAGES = 100


@dataclass(frozen=True)
class Evidence:
    """What was measured of one file on one backend, on `n` images.

    `tolerance` is None for an integer file. `decisions` and what follows are None where outputs were no numbers to
    compare; `task` where no label is known; `robustness` where the eager model is not there to be asked. `broken` are
    findings that no number excuses: a hash, a wrong shape, a batch that was not refused. `shown` is kept for reports
    and judged by nothing.
    """

    n: int
    precision: str
    numbers: Numbers
    tolerance: Tolerance | None
    decisions: Decisions | None = None
    task: Task | None = None
    robustness: Robustness | None = None
    broken: tuple[str, ...] = ()
    shown: dict[str, Any] | None = None


def judge(evidence: Evidence) -> tuple[Verdict, list[str]]:
    """Decide one cell.

    FAIL: anything broken, a difference beyond the tolerance, a float32 answer that flips where rounding does not
    explain it, or a loss beyond the margin. UNDECIDED: the images cannot exclude such a loss, or are too few to say
    anything, or a float32 answer flips where the eager model itself holds two classes within rounding of each other.
    """
    failed = [*evidence.broken, *judge_numbers(evidence.numbers, evidence.tolerance)]
    open_: list[str] = []
    decisions, tolerance = evidence.decisions, evidence.tolerance
    if decisions and tolerance and evidence.precision == "fp32":
        ours, theirs = _flips_of_a_copy(decisions, tolerance)
        failed += ours
        open_ += theirs
    # Within rounding and without a flip the file is the model itself: nothing is left for a sample to decide.
    identical = tolerance is not None and decisions is not None and not decisions.flips and not failed
    if evidence.task and not identical:
        ours, theirs = judge_task(evidence.task)
        failed += ours
        open_ += theirs
    if evidence.robustness:
        ours, theirs = judge_robustness(evidence.robustness)
        failed += ours
        open_ += theirs
    if failed:
        return "FAIL", failed
    if evidence.n < MIN_IMAGES:
        bound = 100 * rate_upper_bound(0, evidence.n)
        open_.append(
            f"only {evidence.n} images: no flip among them would bound the flip rate at {bound:.1f} % (95 %); "
            f"compare at least {MIN_IMAGES}"
        )
    if evidence.task is None and not identical:
        open_.append("no image has a label, so nothing is known of the task; compare with a labelled dataset")
    return ("UNDECIDED", open_) if open_ else ("PASS", [])


def overall(verdicts: Sequence[Verdict]) -> Verdict:
    """FAIL if any failed, else UNDECIDED if any (or none was reached), else PASS."""
    if "FAIL" in verdicts:
        return "FAIL"
    if "UNDECIDED" in verdicts or not verdicts:
        return "UNDECIDED"
    return "PASS"


def _flips_of_a_copy(decisions: Decisions, tolerance: Tolerance) -> tuple[list[str], list[str]]:
    """Judge the flips of a file that should be the eager model itself: why it fails, and why it cannot be told."""
    text = f"{decisions.flips} of {decisions.n} images change their answer"
    clear = [m for m in decisions.flip_margins if m > 2 * tolerance.value]
    if clear:
        sure = f"{len(clear)} of them where the eager model was sure (logit margin up to {max(clear):.3g})"
        return [f"{text}, {sure}"], []
    if decisions.flips:
        return [], [f"{text}, all where the eager model's two best classes are within rounding of each other"]
    return [], []
