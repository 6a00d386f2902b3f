import numpy as np
import pytest

from hwr_export.runners import Arrays
from hwr_export.spec import LOGITS, PROBABILITIES
from hwr_export.task import compare_task, judge_task


def sides(n: int, wrong: int = 0, confidence: float = 0.99) -> Arrays:
    """Answers of class 0, `wrong` of them 1, all with one confidence."""
    classes = np.zeros(n, int)
    classes[:wrong] = 1
    p = np.full((n, 2), 1 - confidence, np.float32)
    p[np.arange(n), classes] = confidence
    return {LOGITS: np.log(p), PROBABILITIES: p}


def test_no_change_is_none() -> None:
    labels = np.zeros(5000, int)
    found = compare_task(sides(5000, 20), sides(5000, 20), labels, None, 0.9, 0.001)
    assert judge_task(found) == ([], [])
    document = found.as_json()
    assert document["rates"]["accuracy"]["delta_pt"] == 0
    assert document["ece"]["drift"] == 0
    assert document["rejection"]["exported"] == {"read": 1.0, "error_of_read": pytest.approx(0.004)}


def test_a_loss_is_refused_and_a_small_one_is_open() -> None:
    labels = np.zeros(5000, int)
    failed, open_ = judge_task(compare_task(sides(5000), sides(5000, 30), labels, None, 0.9, 0.001))
    assert open_ == []
    assert [f.split(" changes")[0] for f in failed] == ["accuracy", "not read wrongly"]
    assert "worse than the margin of 0.1 by the upper bound -0.4" in failed[0]
    failed, open_ = judge_task(compare_task(sides(5000), sides(5000, 2), labels, None, 0.9, 0.001))
    assert failed == []
    assert "more images like these would decide" in open_[0]


def test_an_error_that_is_left_blank_is_not_read_wrongly() -> None:
    labels = np.zeros(5000, int)
    unsure = sides(5000, 50)
    unsure[PROBABILITIES][:50] = (0.45, 0.55)
    found = compare_task(sides(5000), unsure, labels, None, 0.9, 0.001)
    verdicts = {r.name: r.verdict for r in found.rates}
    assert verdicts == {"accuracy": "FAIL", "not read wrongly": "PASS", "read correctly": "UNDECIDED"}


def test_a_model_that_reads_nothing_is_useless_however_right_it_is() -> None:
    labels = np.zeros(5000, int)
    failed, _ = judge_task(compare_task(sides(5000), sides(5000, confidence=0.6), labels, None, 0.9, 0.001))
    assert len(failed) == 1
    assert failed[0].startswith("read correctly changes by -100.000 points")


def test_calibration_drift_and_writers() -> None:
    labels, writers = np.zeros(5000, int), np.arange(5000) // 100
    found = compare_task(sides(5000), sides(5000, 50, 0.95), labels, writers, 0.9, 0.01)
    assert found.writers == 50
    assert found.as_json()["ece"]["drift"] == pytest.approx(0.04 - 0.01, abs=1e-6)
    # All fifty errors are one writer's: that is one event, and the bound knows.
    assert found.accuracy.found.design_effect > 20
    assert found.accuracy.verdict == "UNDECIDED"


def test_images_without_labels_say_nothing() -> None:
    assert compare_task(sides(10), sides(10), np.full(10, -1), None, 0.9, 0.001) is None
