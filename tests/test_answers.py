import base64
import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from hwr_export.answers import MOST_FLIPS, describe_answers, flipped_images
from hwr_export.datasets import Dataset
from hwr_export.statistics import wilson_interval
from tests.test_decisions import answering

CLASSES = st.integers(0, 9)


def test_flips_keep_the_image_both_answers_and_how_sure_each_was(mnist_test: Dataset) -> None:
    images, labels = mnist_test.images[:4], mnist_test.labels[:4].astype(np.int64)  # 7 2 1 0
    eager, exported = answering(7, 2, 1, 0, margin=4), answering(7, 3, 1, 8, margin=2)
    eager["logits"][3, 0] = 5.0
    found = flipped_images(eager, exported, images, labels)
    assert [(f["index"], f["label"]) for f in found] == [(3, 0), (1, 2)]  # the surest first
    assert found[0]["eager"]["margin"] == 5.0
    assert found[0]["exported"]["answer"] == 8
    assert found[1]["exported"] == {
        "answer": 3,
        "margin": 2.0,
        "confidence": pytest.approx(float(exported["probabilities"][1].max()), abs=1e-6),
    }
    for flip in found:
        kept = np.asarray(Image.open(io.BytesIO(base64.b64decode(flip["png"]))))
        np.testing.assert_array_equal(kept, images[flip["index"]])


def test_a_label_that_nobody_knows_is_none_and_only_so_many_are_kept() -> None:
    n = MOST_FLIPS + 5
    images, labels = np.zeros((n, 3, 3), np.uint8), np.full(n, -1)
    found = flipped_images(answering(*[1] * n), answering(*[2] * n), images, labels)
    assert len(found) == MOST_FLIPS
    assert {f["label"] for f in found} == {None}
    assert flipped_images(answering(1), answering(1), images[:1], labels[:1]) == []


@given(st.lists(st.tuples(CLASSES, CLASSES), min_size=1, max_size=50))
def test_counts_add_up_to_the_images(rows: list[tuple[int, int]]) -> None:
    labels, answers = (np.array(column) for column in zip(*rows, strict=True))
    found = describe_answers(answering(*answers), labels, None)
    assert found is not None
    assert sum(k for _, _, k in found["confusion"]) == found["n"] == len(rows)
    assert sum(k for true, answer, k in found["confusion"] if true == answer) == found["right"]
    assert {(t, a) for t, a, _ in found["confusion"]} == set(rows)
    assert sum(k for _, _, k in found["reliability"]) == len(rows)
    assert found["risk_coverage"][0] == [1.0, pytest.approx(1 - found["right"] / len(rows), abs=1e-6)]
    assert found["accuracy_ci95"] == list(wilson_interval(found["right"], len(rows)))


def test_images_without_a_label_count_for_nothing() -> None:
    assert describe_answers(answering(1, 2), np.array([-1, -1]), None) is None
    found = describe_answers(answering(1, 2, 3), np.array([1, -1, 4]), None)
    assert found is not None
    assert (found["n"], found["right"]) == (2, 1)


def test_writers_widen_the_interval() -> None:
    labels = np.array([1] * 40)
    outputs = answering(*([1] * 20 + [2] * 20))
    alone = describe_answers(outputs, labels, None)
    by_writer = describe_answers(outputs, labels, np.repeat([0, 1, 2, 3], 10))
    assert alone is not None
    assert by_writer is not None
    assert by_writer["accuracy_ci95"][0] < alone["accuracy_ci95"][0]
