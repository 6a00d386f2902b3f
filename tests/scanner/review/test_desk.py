"""What is laid before whom: in order, once, by two people where two are asked for; and what becomes of an answer."""

import json
from pathlib import Path

import pytest

from hwr_export.errors import FormError
from hwr_export.scanner.review.desk import TakenError
from hwr_export.scanner.review.ledger import FIRST, SECOND, SETTLED, THIRD
from tests.scanner.review.conftest import Opened

ORDER = ["customer", "reference", "goods", "total", "note", "express"]


def names(desk) -> list[str]:
    return [desk.item(n).read.name for n in range(6)]


def take(desk, by: str, written: str | None = None, unreadable: str = "") -> str:
    """Answer what is laid before somebody; without a text, as it was read."""
    item = desk.item(desk.next_for(by))
    text = item.read.value if written is None else written
    desk.answer(item, desk.asked(item.number), by, text, unreadable)
    return item.read.name


def test_fields_come_in_the_order_of_the_pages_and_once(desk: Opened) -> None:
    opened = desk()
    assert names(opened) == ORDER
    answers = ["204817", "86095742719", "   12050", "   12545", "70215", "yes"]
    assert [take(opened, "anna", answer) for answer in answers] == ORDER
    assert opened.next_for("anna") is None
    progress = opened.progress("anna")
    assert (progress.done, progress.of, progress.unreadable) == (6, 6, 0)
    assert progress.a_minute > 0
    again = desk()
    assert again.next_for("anna") is None
    assert [again.looks(again.item(n))[FIRST].value for n in range(6)] == [
        *("204817", "86095742719", "120.50", "125.45", "70215", "yes")
    ]


def test_what_is_skipped_comes_last_and_again_after_a_restart(desk: Opened) -> None:
    opened = desk()
    for name in ("customer", "reference"):
        item = opened.item(opened.next_for("anna"))
        assert item.read.name == name
        opened.skip(item, FIRST, "anna")
    opened = desk()
    assert opened.progress("anna").skipped == 2
    assert [take(opened, "anna", "no" if i == 3 else "") for i in range(6)] == [
        *("goods", "total", "note", "express", "customer", "reference")
    ]
    assert opened.progress("anna").skipped == 0


def test_undo_goes_back_as_many_steps_as_there_are(desk: Opened) -> None:
    opened = desk()
    take(opened, "anna", "111111")
    opened.skip(opened.item(1), FIRST, "anna")
    take(opened, "anna", unreadable="illegible")
    opened = desk()
    assert opened.progress("anna").unreadable == 1
    undone = [opened.undo("anna") for _ in range(4)]
    assert [u and (u[0].read.name, u[1].do, u[1].written) for u in undone] == [
        ("goods", "answer", ""),
        ("reference", "skip", ""),
        ("customer", "answer", "111111"),
        None,
    ]
    assert [opened.asked(n) for n in range(6)] == [FIRST] * 6
    assert not opened.progress("anna").can_undo


def test_nobody_takes_back_what_another_did(desk: Opened) -> None:
    opened = desk()
    take(opened, "anna", "111111")
    assert opened.undo("ben") is None
    assert opened.undo(" ANNA ") is not None


def test_two_people_look_and_a_third_look_settles(desk: Opened) -> None:
    opened = desk(two_pass=True)
    assert [take(opened, "anna") for _ in ORDER] == ORDER
    assert opened.next_for("anna") is None
    assert opened.next_for("Anna ") is None
    with pytest.raises(TakenError, match="taken by two people"):
        opened.answer(opened.item(0), SECOND, "ANNA", "204817")
    assert take(opened, "ben", "204817") == "customer"  # read as 204811
    assert opened.asked(0) == THIRD
    assert take(opened, "ben", "") == "reference"
    assert opened.asked(1) == SETTLED
    opened = desk()  # and it stays a review by two
    assert opened.two_pass
    assert [take(opened, "ben") for _ in range(4)] == ORDER[2:]
    assert opened.next_for("anna") == opened.next_for("cleo") == 0
    assert take(opened, "cleo", "204817") == "customer"
    assert opened.progress("cleo").done == 6


def test_a_third_look_is_asked_again_when_what_it_judged_changes(desk: Opened) -> None:
    opened = desk(two_pass=True)
    item = opened.item(0)
    for look, by, written in ((FIRST, "anna", "111111"), (SECOND, "ben", "222222"), (THIRD, "cleo", "333333")):
        opened.answer(item, look, by, written)
    assert opened.asked(0) == SETTLED
    opened.undo("ben")
    assert opened.asked(0) == SECOND
    opened.answer(item, SECOND, "ben", "222223")
    assert opened.asked(0) == THIRD
    opened.undo("ben")
    opened.answer(item, SECOND, "ben", "111111")
    assert opened.asked(0) == SETTLED


def test_an_answer_is_not_laid_over_another(desk: Opened) -> None:
    opened = desk()
    item = opened.item(0)
    opened.answer(item, FIRST, "anna", "111111")
    with pytest.raises(TakenError, match="answered meanwhile, in another window"):
        opened.answer(item, FIRST, "ben", "222222")
    with pytest.raises(TakenError, match="no referred field of the number 6"):
        opened.item(6)


def test_rules_are_judged_with_what_is_settled(desk: Opened) -> None:
    opened = desk()
    total = opened.item(3)
    assert [kept for _, kept in opened.consider(total, "   12545").rules] == [None, True]
    opened.answer(opened.item(2), FIRST, "anna", "   12050")
    right, wrong = opened.consider(total, "   12545"), opened.consider(total, "   12645")
    assert right.rules == (("Total is the sum of Goods and Postage", True), ("Total is at most 5000", True))
    assert right.valid
    assert [kept for _, kept in wrong.rules] == [False, True]
    assert not wrong.valid
    opened.answer(total, FIRST, "anna", "   12645")
    assert opened.looks(total)[FIRST].valid is False
    assert opened.consider(opened.item(2), "").remarks == (
        "Something seems to be written here. Accept again if the field is empty.",
    )


def test_fields_that_are_read_meanwhile_come_too(desk: Opened, results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = desk()
    for _ in range(6):
        take(opened, "anna", "yes")
    lines = (results / "results.jsonl").read_text().splitlines(keepends=True)
    more = json.loads(lines[0]) | {"path": "third.png"}
    more["file"] |= {"path": "/third.png"}
    with (results / "results.jsonl").open("a") as file:
        file.write(json.dumps(more) + "\n" + lines[1][:40])
    assert opened.progress("anna").of == 6
    item = opened.item(opened.next_for("anna"))
    assert (item.page.path, item.read.name) == ("third.png", "customer")
    assert opened.progress("anna").of == 10
    with (results / "results.jsonl").open("a") as file:
        file.write(lines[1][40:])  # the second page once more, as it was
    monkeypatch.setattr("hwr_export.scanner.review.desk.WIDEN_S", 0)
    assert opened.next_for("anna") == 6
    assert (opened.progress("anna").of, opened.progress("anna").done) == (10, 6)


def test_a_page_that_was_read_again_is_asked_anew(desk: Opened, results: Path) -> None:
    opened = desk()
    item = opened.item(0)
    opened.answer(item, FIRST, "anna", "204817")
    lines = (results / "results.jsonl").read_text().splitlines(keepends=True)
    again = json.loads(lines[0])
    again["file"]["mtime_ns"] += 1  # it was scanned once more, and customer is certain now
    again["fields"][0] |= {"accepted": True, "reasons": []}
    with (results / "results.jsonl").open("a") as file:
        file.write(json.dumps(again) + "\n")
    opened._widen()
    progress = opened.progress("anna")
    assert (progress.of, progress.done) == (5, 0)
    with pytest.raises(TakenError, match="the page was read again meanwhile"):
        opened.answer(opened.item(1), FIRST, "anna", "86095742719")
    opened = desk()
    asked = [opened.item(n).read.name for n in range(len(opened.referred)) if opened.asked(n) == FIRST]
    assert asked == ["note", "express", "reference", "goods", "total"]
    assert opened.overview(5) == {"pages": 2, "accepted": 15, "refused_count": 0, "refused": []}


def test_results_that_are_none(desk: Opened, results: Path) -> None:
    (results / "form.yaml").write_text((results / "form.yaml").read_text().replace("id: order", "id: other"))
    with pytest.raises(
        FormError, match=r"is the form other version 1, but run.json says that order version 1 was read"
    ):
        desk()
    (results / "form.yaml").write_text((results / "form.yaml").read_text().replace("id: other", "id: order") + "\n")
    with pytest.raises(FormError, match="has changed since these results were read"):
        desk()
    (results / "run.json").write_text("[]")
    with pytest.raises(FormError, match=r"run\.json is not what read-form writes: document: Input should be an object"):
        desk()
    (results / "run.json").unlink()
    with pytest.raises(FormError, match=r"is no folder of results: its run.json cannot be read"):
        desk()
