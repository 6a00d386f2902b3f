"""Final values say who decided them, and what was read is beside them."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from hwr_export.scanner.review.ledger import FIRST
from tests.scanner.review.conftest import Opened

Run = Callable[..., Result]


@pytest.fixture
def reviewed(desk: Opened, results: Path) -> Path:
    with (results / "results.jsonl").open("a") as file:
        file.write(
            json.dumps({"path": "third.png", "status": "refused", "reason": "blank-page: nothing is on it"}) + "\n"
        )
    opened = desk()
    for number, written in enumerate(["204817", "", "   12050", "   12645"]):
        opened.answer(opened.item(number), FIRST, "anna", written, "illegible" if number == 1 else "")
    return results


def test_csv(reviewed: Path, tmp_path: Path, hwr: Run) -> None:
    done = hwr("review", reviewed, "--export", tmp_path / "values.csv")
    assert done.exit_code == 0, done.stderr
    assert done.stdout == f"{tmp_path / 'values.csv'}: 14 accepted, 4 settled by people, 2 open, 1 pages refused\n"
    with (tmp_path / "values.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 21
    first = {row["field"]: row for row in rows[:10]}
    assert {k: v for k, v in first["customer"].items() if k != "page"} == {
        "field": "customer",
        "value": "204817",
        "decided_by": "person",
        "people": "anna",
        "valid": "yes",
        "unreadable": "",
        "original_value": "204811",
        "original_confidence": "0.62",
        "original_reasons": "doubtful",
    }
    assert (first["reference"]["value"], first["reference"]["unreadable"]) == ("", "illegible")
    assert (first["total"]["value"], first["total"]["valid"]) == ("126.45", "no")
    assert (first["due"]["value"], first["due"]["decided_by"]) == ("2026-12-24", "model")
    opened = [row for row in rows if row["decided_by"] == "open"]
    assert [(row["field"], row["value"], row["original_value"]) for row in opened] == [
        ("note", "", "70215"),
        ("express", "", "no"),
    ]
    assert (rows[-1]["decided_by"], rows[-1]["original_reasons"]) == ("refused", "blank-page: nothing is on it")


def test_json(reviewed: Path, tmp_path: Path, hwr: Run) -> None:
    assert hwr("review", reviewed, "--export", tmp_path / "values.json").exit_code == 0
    found = json.loads((tmp_path / "values.json").read_text())
    assert (found["schema"], found["form"]) == (1, "order")
    assert found["decided_by"] == {"person": 4, "model": 14, "open": 2, "refused": 1}
    assert found["pages"][0]["fields"][0] == {
        "name": "customer",
        "value": "204817",
        "decided_by": "person",
        "people": ["anna"],
        "valid": True,
        "unreadable": "",
        "original": {"value": "204811", "confidence": 0.62, "reasons": ["doubtful"]},
    }
    assert found["pages"][2] == {
        "path": "third.png", "status": "refused", "reason": "blank-page: nothing is on it", "fields": []
    }  # fmt: skip


def test_a_field_that_waits_for_a_second_look_is_open(desk: Opened, results: Path, tmp_path: Path, hwr: Run) -> None:
    opened = desk(two_pass=True)
    opened.answer(opened.item(0), FIRST, "anna", "204817")
    done = hwr("review", results, "--export", tmp_path / "values.csv")  # while the page is being served
    assert "0 settled by people, 6 open" in done.stdout


def test_wrong_words(results: Path, tmp_path: Path, hwr: Run) -> None:
    done = hwr("review", results, "--export", tmp_path / "values.xlsx")
    assert (done.exit_code, "values are written to FILE.csv or FILE.json" in done.stderr) == (2, True)
    assert not (tmp_path / "values.xlsx").exists()
    done = hwr("review", results, "--export", tmp_path / "values.csv", "--two-pass")
    assert (done.exit_code, "leave out the options of the page" in done.stderr) == (2, True)
    done = hwr("review", tmp_path, "--export", tmp_path / "values.csv")
    assert (done.exit_code, "is no folder of results" in done.stderr) == (2, True)
