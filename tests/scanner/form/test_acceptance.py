"""Thresholds hold their bound on pages that chose none of them, and nothing is accepted without one."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.errors import ReleaseError, UsageError
from hwr_export.files import json_bytes
from hwr_export.release import Release
from hwr_export.scanner.form.acceptance import (
    FAMILIES,
    Judged,
    choose,
    error_bound,
    few_pages,
    load_acceptance,
)
from hwr_export.scanner.form.calibrate import calibrate, judged_families, load_truth, truth_of
from hwr_export.scanner.form.definition import Form, dump_form
from hwr_export.scanner.form.fields import FormField
from hwr_export.statistics import rate_upper_bound


def fields(rng: np.random.Generator, pages: int, each: int = 15, spoiled: float = 0.0) -> Judged:
    """Return fields whose probability tells how often they are wrong; on a spoiled page a surely wrong one too."""
    confidence = 1 - rng.beta(0.05, 8, pages * each)
    wrong = rng.random(pages * each) > confidence
    page = np.repeat(np.arange(pages), each)
    first = (np.arange(pages * each) % each == 0) & (rng.random(pages)[page] < spoiled)
    return Judged(np.where(first, 1.0, confidence), wrong | first, page)


def test_every_kind_of_field_is_of_a_family() -> None:
    kinds = {
        kind
        for union in (FormField.__args__[0],)  # type: ignore[attr-defined]
        for model in union.__args__
        for kind in model.model_fields["kind"].annotation.__args__
    }
    assert set(FAMILIES) == kinds


def test_a_threshold_holds_the_bound_where_probabilities_are_honest() -> None:
    rng = np.random.default_rng(1)
    found = choose("digits", fields(rng, 1000))
    assert found is not None
    assert found.upper_bound <= 0.001
    assert found.accepted > 0.5 * found.fields
    fresh = fields(rng, 20_000)
    accepted = fresh.confidence >= found.least
    assert fresh.wrong[accepted].mean() <= 0.001


def test_the_bound_fails_as_seldom_as_it_says() -> None:
    """Over many calibrations, the share of thresholds that do not hold is within the confidence."""
    rng = np.random.default_rng(2)
    fresh = fields(rng, 200_000)
    failed = tried = 0
    for _ in range(60):
        found = choose("digits", fields(rng, 400), bound=0.003)
        tried += found is not None
        failed += found is not None and fresh.wrong[fresh.confidence >= found.least].mean() > 0.003
    assert tried > 50
    assert failed <= 6  # 3 are expected at most; more than 6 happens once in twenty such tests


def test_a_confident_error_on_every_page_is_never_accepted() -> None:
    assert choose("digits", fields(np.random.default_rng(3), 1000, spoiled=1.0)) is None


def test_few_pages_show_nothing_and_the_message_says_how_many_would() -> None:
    judged = fields(np.random.default_rng(4), 20)
    assert choose("digits", judged) is None
    said = few_pages("digits", judged, 0.001, 0.95)
    assert "20 pages with 300 digits fields do not show that at most 0.10% of the accepted ones are wrong" in said
    assert "of the 90 surest, 0 are wrong, and it takes 2,995 without a wrong one" in said


@given(st.integers(1, 400), st.integers(1, 20), st.lists(st.integers(0, 399), max_size=20))
@settings(max_examples=100)
def test_the_bound_is_above_what_was_seen_and_exact_without_clusters(pages: int, each: int, wrong: list[int]) -> None:
    wrong_pages = np.array([page for page in wrong if page < pages], dtype=np.int64)
    accepted = pages * each
    bound = error_bound(accepted, wrong_pages, pages)
    assert bound >= min(1.0, len(wrong_pages) / accepted)
    if each == 1 and len(set(wrong_pages.tolist())) == len(wrong_pages):
        assert bound == pytest.approx(rate_upper_bound(len(wrong_pages), pages))


def test_errors_on_one_page_count_less_than_on_many() -> None:
    together, apart = np.zeros(3, dtype=np.int64), np.arange(3)
    assert error_bound(6000, apart, 1000) != error_bound(6000, together, 1000)
    # One bad page is one sample: what it shows of others is less sure.
    assert error_bound(6000, together, 1000) > 3 * rate_upper_bound(1, 6000) * 0.9


FORM = Form.model_validate(
    {
        "id": "f",
        "fields": [
            {"kind": "digits", "name": "n", "x": 30, "y": 40, "boxes": 4},
            {"kind": "letters", "name": "w", "x": 30, "y": 60, "boxes": 4},
        ],
    }
)


def page(number: int, value: str, confidence: float, reasons: tuple[str, ...] = ()) -> dict[str, object]:
    fields = [
        {"name": "n", "value": value, "confidence": confidence, "reasons": list(reasons)},
        {"name": "w", "value": "ABC", "confidence": 0.5, "reasons": ["not-readable"]},
    ]
    return {"path": f"scans/{number}.png", "status": "read", "fields": fields}


def test_calibrating_writes_what_reading_finds(release_dir: Path) -> None:
    release = Release.open(release_dir)
    pages = [page(i, "12", 0.99 if i % 4 else 0.3, ("not-calibrated",)) for i in range(400)]
    truth = {f"{i}.png": {"n": "12" if i % 4 else "13", "w": "ABC"} for i in range(400)}
    assert load_acceptance(release) is None
    (chosen,), without = calibrate(FORM, pages, truth, [release], bound=0.02)
    assert without == []
    assert (chosen.family, chosen.least, chosen.wrong) == ("digits", 0.99, 0)
    again = Release.open(release_dir)
    assert all(status.ok for status in again.verify())
    kept = load_acceptance(again)
    assert kept is not None
    assert kept.least("digits") == 0.99
    assert kept.least("letters") is None
    entry = again.entry("acceptance.json")
    assert entry is not None
    assert entry.made_from == (again.onnx("fp32").sha256,)


def test_fields_that_another_reason_refers_choose_nothing(release_dir: Path) -> None:
    release = Release.open(release_dir)
    pages = [page(0, "12", 0.99, ("struck-out",)), page(1, "12", 0.9, ("doubtful",)), page(2, "12", 0.8)]
    told = truth_of(pages, {f"{i}.png": {"n": "12"} for i in range(3)})
    (judged,) = judged_families(FORM, pages, told, [release.spec.labels]).values()
    assert judged.confidence.tolist() == [0.9, 0.8]
    assert judged.page.tolist() == [1, 2]


def test_what_does_not_fit_is_said(release_dir: Path, tmp_path: Path) -> None:
    release = Release.open(release_dir)
    with pytest.raises(UsageError, match=r"the truth has no page '1.png' \(1 of 2 pages are missing\)"):
        calibrate(FORM, [page(0, "1", 1), page(1, "1", 1)], {"0.png": {}}, [release])
    with pytest.raises(UsageError, match="1 pages with 1 digits fields do not show"):
        calibrate(FORM, [page(0, "1", 1)], {"0.png": {"n": "1"}}, [release])
    for content, said in (("[1]", "is no truth of pages"), ("{", "is not JSON"), ('{"a": {"b": 1}}', "is no truth")):
        (tmp_path / "truth.json").write_text(content)
        with pytest.raises(UsageError, match=said):
            load_truth(tmp_path / "truth.json")
    with pytest.raises(UsageError, match="cannot be read"):
        load_truth(tmp_path / "none.json")


def test_a_document_that_is_none_is_refused(release_dir: Path) -> None:
    release = Release.open(release_dir)
    with release.change() as change:
        change.write("acceptance.json", json_bytes({"schema": 1, "thresholds": [{"family": "x"}]}), "acceptance")
    with pytest.raises(ReleaseError, match=r"no document this version can read.*hwr-export form calibrate"):
        load_acceptance(Release.open(release_dir))
    assert json.loads((release_dir / "acceptance.json").read_text())["schema"] == 1


def test_the_command_calibrates_from_a_folder_of_results(release_dir: Path, tmp_path: Path, hwr: Callable) -> None:
    results = tmp_path / "results"
    results.mkdir()
    (results / "form.yaml").write_text(dump_form(FORM))
    lines = [json.dumps(page(i, "12", 0.99 if i % 4 else 0.3)) + "\n" for i in range(400)]
    refused = json.dumps({"path": "x.png", "status": "refused", "fields": []}) + "\n"
    (results / "results.jsonl").write_text("".join([*lines, refused]) + '{"path": "cut o')
    (tmp_path / "truth.json").write_text(json.dumps({f"{i}.png": {"n": "12" if i % 4 else "13"} for i in range(400)}))
    command = ("form", "calibrate", results, "--truth", tmp_path / "truth.json", "--release", release_dir)
    failed = hwr(*command)
    assert failed.exit_code == 2
    assert "400 pages with 400 digits fields do not show that at most 0.10% of the accepted ones are wrong" in (
        failed.stderr
    )
    done = hwr(*command, "--bound", 0.02, "--json")
    assert done.exit_code == 0
    (threshold_,) = json.loads(done.stdout)["thresholds"]
    assert (threshold_["accepted"], threshold_["wrong"]) == (300, 0)
    assert "300 (75.0%)" in hwr(*command, "--bound", 0.02).stdout
    missing = hwr("form", "calibrate", tmp_path, "--truth", tmp_path / "truth.json", "--release", release_dir)
    assert "is no folder of results, as `read-form -o` writes it" in missing.stderr
