"""A sample of the inputs of `python -m tests.scanner.form.fuzz`, and the committed run of all of them."""

import json

from tests.scanner.form.fuzz import FIGURES, READER, fuzz
from tests.scanner.form.hostile import PAGES, ROOT
from tests.scanner.form.hostile_forms import FORMS


def test_a_sample_gives_a_page_or_a_sentence_each() -> None:
    found = fuzz(150, READER, seed=1)
    assert found.failures == []
    assert sum(sum(outcomes.values()) for outcomes in found.outcomes.values()) == 150
    assert sum(outcomes["read"] for outcomes in found.outcomes.values()) > 10


def test_the_committed_run_holds() -> None:
    run = json.loads(FIGURES.read_text())
    assert run["inputs"] >= 10_000
    assert run["failures"] == []
    assert run["slowest_s"] <= 1.2 * run["limits"]["decode_s"]
    assert set(run["outcomes"]) == {*PAGES, *FORMS} | {"random bytes"}
    page = (ROOT / "docs" / "forms-reading.md").read_text()
    assert f"the slowest took {run['slowest_s']} s" in page
    assert f"{run['peak_rss_mb']:,} MB" in page
