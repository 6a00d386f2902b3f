"""A sample of the inputs of `python -m tests.scanner.form.fuzz`, and the committed run of all of them."""

import json

import numpy as np

from hwr_export.scanner.form.crops import crops
from hwr_export.scanner.form.pen import pen_levels
from hwr_export.scanner.form.strokes import Strokes
from tests.scanner.form.fuzz import FIGURES, READER, fuzz
from tests.scanner.form.hostile import PAGES
from tests.scanner.form.hostile_forms import FORMS


def test_a_sample_gives_a_page_or_a_sentence_each() -> None:
    found = fuzz(150, READER, seed=1)
    assert found.failures == []
    assert sum(sum(outcomes.values()) for outcomes in found.outcomes.values()) == 150
    assert sum(outcomes["read"] for outcomes in found.outcomes.values()) > 10


def test_what_fuzzing_found() -> None:
    """A field of nothing but noise, and ink of four pixels."""
    levels, pen = pen_levels([np.full((60, 60), 200, np.uint8)], [100.0])
    assert levels == [pen]
    owner = np.ones((4, 1), np.uint8)
    strokes = Strokes(owner, np.array([[0, 0, 1, 4]]), np.array([4]), np.array([False]), stray=False)
    (image,), _ = crops(owner * 200, strokes, 200.0, (28, 28))
    assert image is not None


def test_the_committed_run_holds() -> None:
    run = json.loads(FIGURES.read_text())
    assert run["inputs"] >= 10_000
    assert run["failures"] == []
    assert run["slowest_s"] <= 1.2 * run["limits"]["decode_s"]
    assert set(run["outcomes"]) == {*PAGES, *FORMS} | {"random bytes"}
