"""What the page shows, however large, light or dark: everything is named and seen, and nobody else is asked."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.scanner.review.browsing import Window, kept, press, see, slots
from tests.scanner.review.conftest import Opened
from tests.scanner.review.serving import Served, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser

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
