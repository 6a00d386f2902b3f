"""The review as a person meets it: in headless Chromium, by keys alone, in windows of two people, light and dark."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.scanner.review.conftest import Opened
from tests.scanner.review.serving import Served, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Window = Callable[..., "Page"]
LABELS = ("Customer number", "Reference", "Goods", "Total", "Note", "Express delivery")
CONTRAST = """() => {
  const channel = v => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  const parts = c => c.match(/[\\d.]+/g).map(Number);
  const weigh = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const light = c => weigh(parts(c));
  const behind = e => {
    for (; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      if ((parts(c)[3] ?? 1) > 0.5) return c;
    }
    return getComputedStyle(document.documentElement).colorScheme.includes('dark') ? 'rgb(0,0,0)' : 'rgb(255,255,255)';
  };
  const poor = [];
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement;
    if (!walker.currentNode.data.trim() || !e.checkVisibility()) continue;
    if (e.closest('.hidden, :disabled, .sure, kbd')) continue;
    const [a, b] = [light(getComputedStyle(e).color), light(behind(e))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(walker.currentNode.data.trim());
  }
  return poor;
}"""
CONTROLS = "button, input, progress, [role=textbox], [role=checkbox], img, dialog"
NAMELESS = f"""() => [...document.querySelectorAll('{CONTROLS}')]
  .filter(e => !(e.textContent.trim() && e.tagName === 'BUTTON') && !e.ariaLabel && !e.alt &&
    !(e.labels && e.labels.length) &&
    !document.getElementById(e.getAttribute('aria-labelledby') ?? '')?.textContent.trim() &&
    e.checkVisibility() && !e.closest('[aria-hidden=true]'))
  .map(e => e.outerHTML)"""


@pytest.fixture
def windows(chromium: "Browser") -> Iterator[Window]:
    """Open windows of a review; afterwards nothing may have been complained about, and nobody else asked."""
    said: list[str] = []
    asked: set[str] = set()
    contexts = []

    def open_(review: Served, **settings: Any) -> "Page":
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 800}} | settings)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        page.goto(review.guard.link)
        open_.said, open_.ports = said, open_.ports | {f"127.0.0.1:{review.port}"}  # type: ignore[attr-defined]
        return page

    open_.ports = set()  # type: ignore[attr-defined]
    yield open_
    for context in contexts:
        context.close()
    assert said == []
    assert asked == open_.ports  # type: ignore[attr-defined]


@pytest.fixture
def review(desk: Opened) -> Iterator[Served]:
    with served(desk()) as running:
        yield running


def see(page: "Page", label: str) -> None:
    """Wait until a field is before the person: its label, its picture, and what was judged of what stands there."""
    page.wait_for_function(
        "label => document.querySelector('#label').textContent === label &&"
        " !document.querySelector('#work[aria-busy]') && document.querySelector('#field.drawn, .missing') &&"
        " document.querySelector('#editor[aria-invalid]') && document.querySelector('#work[data-ready]')",
        arg=label,
    )


def warned(page: "Page") -> None:
    """Wait until it is said that another Enter keeps what may not stand there."""
    page.locator("#messages .armed").wait_for()
    page.locator("#work[data-ready]").wait_for()


def press(page: "Page", *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def enter(page: "Page", name: str) -> None:
    page.get_by_label("Your name").fill(name)
    press(page, "Enter")


def slots(page: "Page") -> str:
    return "".join(page.locator("#editor .letter").all_inner_texts()).replace("\u00a0", " ")


def kept(results: Path) -> list[tuple[str, ...]]:
    lines = [json.loads(line) for line in (results / "review.jsonl").read_text().splitlines()]
    return [(e["do"], e.get("field", ""), e.get("value", "")) for e in lines if e["do"] not in ("begin", "two-pass")]


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


def test_the_page_is_looked_at_closely(review: Served, windows: Window) -> None:
    page = windows(review)
    see(page, "Customer number")
    whole = page.locator("#page")
    page.wait_for_function("() => document.querySelector('#page').naturalWidth === 900")
    narrow = whole.bounding_box()["width"]
    press(page, "PageDown")
    page.wait_for_function("() => document.querySelector('#page').naturalWidth === 2600")
    assert whole.bounding_box()["width"] > 2.5 * narrow
    mark, pane = page.locator("#mark").bounding_box(), page.locator("#pane").bounding_box()
    assert pane["x"] <= mark["x"] <= pane["x"] + pane["width"]
    assert pane["y"] <= mark["y"] <= pane["y"] + pane["height"]
    press(page, "PageUp")
    assert whole.bounding_box()["width"] == narrow
    assert page.locator("#loupe").is_hidden()
    # Where boxes are small, the one under the cursor is shown twice.
    page.set_viewport_size({"width": 340, "height": 800})
    page.locator("#loupe").wait_for()
    before = page.locator("#closely").evaluate("image => image.style.left")
    press(page, "Home")
    assert page.locator("#closely").evaluate("image => image.style.left") != before
    page.set_viewport_size({"width": 1280, "height": 800})
    press(page, "?")
    page.get_by_role("dialog", name="Keys").wait_for()
    press(page, "Escape")
    page.get_by_role("dialog", name="Keys").wait_for(state="hidden")


def test_nothing_is_accepted_before_its_picture_was_seen(review: Served, windows: Window, results: Path) -> None:
    page = windows(review)
    see(page, "Customer number")
    held: list[Any] = []

    def hold(route: Any) -> None:
        held.append(route)

    page.route("**/pictures/1/field.png", hold)
    press(page, "7", "Enter")
    page.wait_for_function("() => document.querySelector('#label').textContent === 'Reference'")
    press(page, "1", "Enter", "Enter", "Enter")
    page.get_by_text("The picture is still being drawn.").wait_for()
    assert len(kept(results)) == 1
    held[0].continue_()
    see(page, "Reference")


def test_a_missing_page_is_said(review: Served, windows: Window, results: Path) -> None:
    (results.parent / "first.png").unlink()
    page = windows(review)
    see(page, "Customer number")
    assert "there is no image" in page.locator("#no-picture").inner_text()
    press(page, "7", "Enter")
    see(page, "Reference")


def test_names_of_files_are_text(desk: Opened, windows: Window, results: Path) -> None:
    odd = results.parent / "<img src=x onerror=alert(1)>.png"
    (results.parent / "first.png").rename(odd)
    lines = (results / "results.jsonl").read_text().replace("first.png", odd.name)
    (results / "results.jsonl").write_text(lines)
    with served(desk()) as review:
        page = windows(review)
        see(page, "Customer number")
        assert page.locator("#page-name").inner_text() == odd.name
        assert page.locator("img").count() == 3


def test_an_ended_review_is_said(desk: Opened, windows: Window) -> None:
    with served(desk()) as review:
        page = windows(review)
        see(page, "Customer number")
    press(page, "7", "Enter", "Enter")
    page.get_by_text("The review was ended: start `hwr-export review` again.").wait_for()
    windows.said.clear()  # type: ignore[attr-defined]  # Chromium tells of a refused connection by itself


@pytest.mark.parametrize(
    ("width", "height", "scheme"),
    [(800, 1000, "dark"), (800, 1000, "light"), (1280, 800, "light"), (1920, 1080, "dark")],
)
def test_everything_has_a_name_and_can_be_seen(
    review: Served, windows: Window, width: int, height: int, scheme: str
) -> None:
    page = windows(review, viewport={"width": width, "height": height}, color_scheme=scheme)
    for label, keys in (("Customer number", "Enter"), ("Reference", "+"), ("Goods", "+"), ("Total", "?")):
        see(page, label)
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate(NAMELESS) == []
        for part in ("#field", "#editor", "#accept"):
            box = page.locator(part).bounding_box()
            assert box["y"] + box["height"] < height, part
            assert box["x"] + box["width"] <= width, part
        press(page, keys)
    assert page.evaluate(CONTRAST) == []
    assert page.evaluate(NAMELESS) == []
    press(page, "Escape", "*")
    assert page.evaluate(NAMELESS) == []


def test_tab_goes_through_the_controls_and_back_to_the_field(review: Served, windows: Window) -> None:
    page = windows(review)
    see(page, "Customer number")
    assert page.evaluate("document.activeElement.id") == "editor"
    order = []
    for _ in range(5):
        press(page, "Tab")
        order.append(page.evaluate("document.activeElement.id || document.activeElement.className"))
        assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    assert order == ["accept", "unreadable", "skip", "proposal", "proposal"]
    press(page, "7")  # typing goes to the field, wherever one is
    assert page.evaluate("document.activeElement.id") == "editor"
    assert slots(page) == "204817"
    assert "Cursor on 6 of 6: behind the last" in page.locator("#spoken").inner_text()
    press(page, "Tab", "Space")
    see(page, "Reference")
    assert page.locator("#announced").inner_text() == "Kept: 204817."


def test_the_policy_refuses_a_request(chromium: "Browser", review: Served) -> None:
    page = chromium.new_page()
    page.goto(review.guard.link)
    violated = page.evaluate(
        "new Promise(say => { document.addEventListener('securitypolicyviolation', e => say(e.effectiveDirective));"
        " fetch('http://127.0.0.1:9/').catch(() => {}); })"
    )
    assert violated == "connect-src"
    page.close()
