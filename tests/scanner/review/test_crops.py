"""Labelled characters lie in the folder while an answer says so, in a form that the laboratory's loader takes."""

import csv
from pathlib import Path

import numpy as np
import pytest

from hwr_export.datasets import load_labelled
from hwr_export.errors import UsageError
from hwr_export.release import Release
from hwr_export.runners.release import open_runner
from hwr_export.scanner.review.ledger import FIRST, SECOND, THIRD
from tests.conftest import ROOT
from tests.scanner.review.conftest import Opened
from tests.scanner.review.test_desk import take


def labels(folder: Path) -> str:
    codes = (path.parent.name.removeprefix("U+") for path in folder.glob("U+*/*.png"))
    return "".join(sorted(bytes.fromhex(code).decode("utf-16-be") for code in codes))


def test_characters_are_saved_and_taken_away_again(desk: Opened, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    opened = desk(labelled=labelled)
    take(opened, "anna", "204817")
    take(opened, "anna", "86095742719")
    assert labels(labelled) == "".join(sorted("204817" + "86095742719"))
    take(opened, "anna", "   12050")
    opened.undo("anna")
    opened.undo("anna")
    assert labels(labelled) == "".join(sorted("204817"))
    opened.undo("anna")
    assert list(labelled.glob("U+*")) == []


@pytest.mark.parametrize("written", ["20481", "2048177", " 204817", "20481 ", ""])
def test_where_the_text_does_not_line_up_with_the_ink_nothing_is_saved(
    desk: Opened, tmp_path: Path, written: str
) -> None:
    opened = desk(labelled=tmp_path / "labelled")
    assert take(opened, "anna", written) == "customer"
    assert labels(tmp_path / "labelled") == ""


def test_what_cannot_be_read_gives_nothing(desk: Opened, tmp_path: Path) -> None:
    opened = desk(labelled=tmp_path / "labelled")
    take(opened, "anna", unreadable="illegible")
    assert labels(tmp_path / "labelled") == ""


def test_two_people_have_to_agree_first(desk: Opened, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    opened = desk(two_pass=True, labelled=labelled)
    item = opened.item(0)
    opened.answer(item, FIRST, "anna", "204811")
    assert labels(labelled) == ""
    opened.answer(item, SECOND, "ben", "204817")
    assert labels(labelled) == ""
    opened.answer(item, THIRD, "cleo", "204817")
    assert labels(labelled) == "012478"
    opened.undo("ben")
    assert labels(labelled) == ""


def test_a_line_gives_the_characters_found_on_it(desk: Opened, tmp_path: Path) -> None:
    opened = desk(labelled=tmp_path / "labelled")
    opened.answer(opened.item(4), FIRST, "anna", "70215")
    assert labels(tmp_path / "labelled") == "01257"


def test_what_lies_there_can_be_read_and_is_right(desk: Opened, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    opened = desk(labelled=labelled)
    for written in ("204817", "86095742719", "   12050", "   12545", "70215", "yes"):
        take(opened, "anna", written)
    desk()  # the next session without crops leaves them
    opened = desk(labelled=labelled)
    data = load_labelled(labelled, "0123456789")
    assert len(data) == 6 + 11 + 5 + 5 + 5
    with open_runner(Release.open(ROOT / "exported" / "digits"), "onnxruntime", "fp32") as runner:
        read = runner.infer_all(data.images)["probabilities"].argmax(axis=1)
    assert (read == data.labels).mean() > 0.9
    as_table = load_labelled(labelled / "digits.csv", "0123456789")
    assert len(as_table) == len(data)
    assert len(np.unique(as_table.writers)) == 2  # one a page
    assert len(load_labelled(labelled, "0123456789", prepare="as-is")) == len(data)


def test_what_an_interrupted_session_left_is_taken_away(desk: Opened, tmp_path: Path) -> None:
    labelled = tmp_path / "labelled"
    opened = desk(labelled=labelled)
    take(opened, "anna", "204817")
    (seven,) = labelled.glob("U+0037/*.png")
    foreign = seven.with_name(f"{'0' * 12}{seven.name[12:]}")
    foreign.write_bytes(seven.read_bytes())
    stray = labelled / "U+0031" / seven.name
    stray.write_bytes(seven.read_bytes())
    kept = labelled / "U+0037" / "mine.png"
    kept.write_bytes(seven.read_bytes())
    desk(labelled=labelled)
    assert not stray.exists()
    assert {seven, foreign, kept} <= set(labelled.glob("U+0037/*"))
    with (labelled / "labels.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 7  # this review's six, and another's


def test_a_file_in_its_place(desk: Opened, tmp_path: Path) -> None:
    (tmp_path / "labelled").write_text("")
    with pytest.raises(UsageError, match="labelled is a file; give --labelled a folder"):
        desk(labelled=tmp_path / "labelled")


def test_a_missing_image_is_said_and_the_answer_kept(desk: Opened, tmp_path: Path) -> None:
    opened = desk(labelled=tmp_path / "labelled")
    item = opened.item(0)
    Path(item.page.path).unlink()
    entry, remark = opened.answer(item, FIRST, "anna", "204817")
    assert entry.value == "204817"
    assert remark.startswith("No labelled crops: there is no image")
