"""The review as a person meets it: in headless Chromium, by keys alone, in windows of two people."""

import json
from pathlib import Path

from tests.scanner.review.browsing import LABELS, Window, enter, kept, press, see, slots, warned
from tests.scanner.review.conftest import Opened
from tests.scanner.review.serving import Served, served


def test_a_whole_review_by_keys_alone(review: Served, windows: Window, results: Path) -> None:
    page = windows(review)
    see(page, "Customer number")
    assert page.url == f"http://127.0.0.1:{review.port}/"  # the token is gone from the screen
    assert slots(page) == "204811"
    press(page, "7", "Enter")  # the cursor stands on the character that is least sure
    see(page, "Reference")
    page.keyboard.type("86095742718")
    press(page, "Enter")
    page.get_by_text("Enter once more keeps it as written.").wait_for()
    assert page.locator("#messages .bad").inner_text().endswith("The check digit at the end does not fit the others.")
    press(page, "ArrowLeft", "9", "Enter")
    see(page, "Goods")
    assert page.locator("#value").inner_text() == "120.50 EUR"
    press(page, "Enter")
    see(page, "Total")
    page.get_by_text("It is not so that Total is the sum of Goods and Postage").wait_for()
    press(page, "Home", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowRight", "5")
    page.get_by_text("125.45 EUR").wait_for()
    page.locator("#rules .kept").first.wait_for()
    press(page, "Enter")
    see(page, "Note")
    press(page, "Enter")
    see(page, "Express delivery")
    assert page.locator("#editor").get_attribute("aria-checked") == "false"
    press(page, "Space")
    assert page.locator("#editor").get_attribute("aria-checked") == "true"
    press(page, "n", "y", "Enter")
    page.get_by_role("heading", name="All fields are settled").wait_for()
    assert page.locator("#counts").inner_text() == "6 of 6"
    assert "a minute" not in page.locator("#pace").inner_text()
    assert kept(results) == [
        ("answer", "customer", "204817"),
        ("answer", "reference", "86095742719"),
        ("answer", "goods", "120.50"),
        ("answer", "total", "125.45"),
        ("answer", "note", "70215"),
        ("answer", "express", "yes"),
    ]


def test_what_may_not_stand_there_takes_a_second_enter(review: Served, windows: Window, results: Path) -> None:
    page = windows(review)
    see(page, "Customer number")
    press(page, "x", "Enter", "Enter")  # a stroke too many, before anything was seen
    page.locator("#messages .armed").wait_for()
    assert "X may not stand here, only 0-9." in page.locator("#messages").inner_text().upper().replace(
        "MAY NOT STAND HERE, ONLY", "may not stand here, only"
    )
    assert kept(results) == []
    press(page, "Backspace", "1")
    page.locator("#messages .armed").wait_for(state="detached")
    press(page, "ArrowLeft", "x", "Enter")
    warned(page)
    press(page, "Enter")
    see(page, "Reference")
    entry = json.loads((results / "review.jsonl").read_text().splitlines()[-1])
    assert (entry["written"], entry["valid"]) == ("20481x", False)


def test_undo_goes_back_field_by_field(review: Served, windows: Window, results: Path) -> None:
    page = windows(review)
    see(page, "Customer number")
    press(page, "7", "Enter")
    see(page, "Reference")
    press(page, "+")
    see(page, "Goods")
    press(page, "ArrowUp", "Home", "9", "Enter")
    warned(page)
    press(page, "Enter")
    see(page, "Total")
    press(page, "Control+z")
    see(page, "Goods")
    assert slots(page) == "9  12050"
    press(page, "u")
    see(page, "Reference")
    press(page, "U")
    see(page, "Customer number")
    assert slots(page) == "204817"
    assert page.locator("#undo").is_disabled()
    press(page, "Control+z")
    page.get_by_text("There is nothing to take back.").wait_for(state="attached")
    press(page, "Enter")
    see(page, "Reference")
    assert [do for do, *_ in kept(results)] == ["answer", "skip", "answer", "undo", "undo", "undo", "answer"]


def test_editing_keys(review: Served, windows: Window) -> None:
    page = windows(review)
    see(page, "Customer number")
    for keys, seen in (
        (("Home", "Delete"), " 04811"),
        (("End", "Backspace"), " 0481 "),
        (("Home", "1", "2", "3"), "12381 "),
        (("Home", "Insert"), " 12381"),
        (("ArrowLeft", "9", "Space"), "9 2381"),
        (("Escape",), "204811"),
        (("ArrowDown",), "204817"),
        (("ArrowDown", "ArrowDown"), "204877"),
        (("ArrowUp", "ArrowUp", "ArrowUp"), "204811"),
    ):
        press(page, *keys)
        assert slots(page) == seen, keys
    page.locator("#editor [data-slot='1']").click()
    press(page, "5")
    assert slots(page) == "254811"
    page.locator("#proposals button").nth(1).click()
    assert slots(page) == "204817"
    press(page, "Enter")
    see(page, "Reference")
    press(page, "+")
    see(page, "Goods")
    press(page, "Control+Backspace", "1", "2", "3", "4")  # as on a calculator
    assert slots(page) == "    1234"
    press(page, "Backspace")
    assert slots(page) == "     123"
    press(page, "+")
    see(page, "Total")
    press(page, "+")
    see(page, "Note")
    press(page, "End", "3", "Home", "Insert", "4", "ArrowRight", "Delete", "ArrowRight", "Backspace")
    assert slots(page).rstrip() == "47153"


def test_what_cannot_be_read_is_kept_with_its_reason(review: Served, windows: Window, results: Path) -> None:
    page = windows(review)
    see(page, "Customer number")
    press(page, "*")
    page.get_by_role("dialog", name="Why can it not be read?").wait_for()
    press(page, "2")
    see(page, "Reference")
    press(page, "F2")
    page.get_by_label("or in your words").fill("torn off")
    press(page, "Enter")
    see(page, "Goods")
    press(page, "*", "Escape")
    assert page.locator("#label").inner_text() == "Goods"
    lines = [json.loads(line) for line in (results / "review.jsonl").read_text().splitlines()]
    assert [e.get("unreadable") for e in lines] == [None, "struck out", "torn off"]


def test_two_people_and_a_third_look(desk: Opened, windows: Window, results: Path) -> None:
    with served(desk(two_pass=True)) as review:
        anna, ben, cleo = (windows(review) for _ in range(3))
        enter(anna, "Anna")
        for label in LABELS:
            see(anna, label)
            press(anna, "Enter")
            if label == "Reference":  # something is written there, of which nothing was read
                warned(anna)
                press(anna, "Enter")
        anna.get_by_role("heading", name="Nothing is left for Anna").wait_for()
        assert "6 fields wait for another person's look" in anna.locator("#finished-text").inner_text()

        enter(ben, "Ben")
        see(ben, "Customer number")
        assert ben.locator("#look").inner_text().startswith("Second look: write what you see.")
        assert slots(ben) == " " * 6
        assert ben.locator("#proposals button, #reasons li, .sure").count() == 0
        ben.keyboard.type("204817")
        press(ben, "Enter")
        for label in LABELS[1:5]:
            see(ben, label)
            press(ben, "*", "1")
        see(ben, "Express delivery")
        assert ben.locator("#editor").get_attribute("aria-checked") == "mixed"
        press(ben, "Enter")
        ben.get_by_text("Say whether it is ticked: Y or N.").wait_for()
        press(ben, "n", "Enter")
        see(ben, "Customer number")
        assert ben.locator("#look").inner_text().startswith("Third look: two people differ.")

        enter(cleo, "Cleo")
        see(cleo, "Reference")  # another than what is before ben
        cleo.reload()
        see(cleo, "Reference")  # who she is, the window remembers
        for label in LABELS[1:5]:
            see(cleo, label)
            press(cleo, "Enter")
            cleo.get_by_text("Two people differ: choose with").wait_for()
            press(cleo, "ArrowDown", "ArrowDown", "Enter")
        see(cleo, "Customer number")
        assert cleo.locator("#proposals").inner_text().replace("\n", " ") == (
            "204811 first look, Anna 204817 second look, Ben"
        )
        press(cleo, "ArrowDown", "ArrowDown", "Enter")
        cleo.get_by_role("heading", name="All fields are settled").wait_for()
        press(ben, "ArrowDown", "Enter")  # cleo was quicker: what ben says is not laid over it
        ben.get_by_role("heading", name="All fields are settled").wait_for()
        windows.said[:] = [text for text in windows.said if "409" not in text]  # type: ignore[attr-defined]
    assert [value for _, field, value in kept(results) if field == "customer"] == ["204811", "204817", "204817"]
