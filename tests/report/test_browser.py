"""The page as a reader meets it: in headless Chromium, at a desk, on a phone, without scripts, from the keyboard."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hwr_export.release import REPORT
from tests.report.conftest import Page as Parsed

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

Open = Callable[..., "Page"]
SECTIONS = (
    *("accuracy", "confusion", "confidence", "latency", "choice", "scaling", "roofline", "layers", "phases"),
    *("starting", "sensitivity"),
)


@pytest.fixture
def opened(browser: "Browser", shown: Path) -> Iterator[Open]:
    """Open the report; afterwards nothing may have been complained about or asked for."""
    said: list[str] = []
    asked: list[str] = []
    contexts = []

    def open_(**settings: Any) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | settings)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((shown / REPORT).as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert said == []
    assert {url for url in asked if not url.startswith("data:")} == {(shown / REPORT).as_uri()}


def test_charts_are_drawn(opened: Open) -> None:
    page = opened()
    for section in SECTIONS:
        chart = page.locator(f"#{section} svg.chart:visible").first
        assert chart.bounding_box()["width"] > 100
        marks = chart.locator("path[d], rect, line, circle").count()
        assert marks > (3 if section != "phases" else 1)  # a backend that cannot tell its parts apart has one
    flip = page.locator("#flips img").first
    assert flip.evaluate("image => image.complete && image.naturalWidth") == 28


def column(page: "Page", name: str) -> list[str]:
    rows = page.locator("#accuracy table tbody tr")
    at = page.locator("#accuracy table thead th").all_inner_texts()
    index = [text.split("\n")[0] for text in at].index(name)
    return [row.locator("th, td").nth(index).inner_text() for row in rows.all()]


def test_tables_sort_by_click(opened: Open) -> None:
    page = opened()
    before = column(page, "File")
    head = page.locator("#accuracy table thead th").first
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "ascending"
    assert column(page, "File") == sorted(before) == ["fp32", "int8", "int8-cpu"]
    head.locator("button").click()
    assert head.get_attribute("aria-sort") == "descending"
    assert column(page, "File") == sorted(before, reverse=True)


def test_tables_sort_by_keyboard_and_by_value(opened: Open) -> None:
    page = opened()
    button = page.locator("#accuracy table thead th", has_text="differ").locator("button")
    button.focus()
    assert button.evaluate("b => getComputedStyle(b).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    values = [float(v) for v in column(page, "Logits")]
    assert values == sorted(values)
    page.keyboard.press("Space")
    assert [float(v) for v in column(page, "Logits")] == sorted(values, reverse=True)
    assert page.locator("#accuracy th[aria-sort]").count() == 1


def test_what_is_folded_opens_by_keyboard_and_sorts(opened: Open) -> None:
    page = opened()
    tails = page.locator("#latency details", has_text="Tails")
    assert tails.locator("table").is_hidden()
    tails.locator("summary").focus()
    page.keyboard.press("Enter")
    assert tails.locator("table").is_visible()
    head = tails.locator("thead th", has_text="p90").first
    head.locator("button").click()
    at = tails.locator("thead th").all_inner_texts().index("p90")
    cells = tails.locator(f"tbody tr td:nth-child({at + 1})").all()
    values = [float(cell.get_attribute("data-value")) for cell in cells]
    assert values == sorted(values)
    assert len(values) > 4


def test_layers_of_the_int8_file_are_open_and_the_others_one_key_away(opened: Open) -> None:
    page = opened()
    shown = page.locator("#layers table:visible caption").all_inner_texts()
    assert [text.split("  ")[0].strip() for text in shown] == ["Layers of the int8 file for one image"]
    assert page.locator("#layers details").count() == 3


def test_marks_have_tips(opened: Open) -> None:
    page = opened()
    mark = page.locator("#confusion [data-tip]").first
    mark.hover()
    tip = page.locator("#tip")
    assert tip.is_visible()
    assert tip.inner_text() == mark.get_attribute("data-tip")
    page.keyboard.press("Escape")
    assert tip.is_hidden()


def test_everything_can_be_read_without_scripts(opened: Open, page: str) -> None:
    shown = opened(java_script_enabled=False)
    assert shown.locator("th button").count() == 0
    assert shown.locator("svg.chart:visible").count() > 10
    text = " ".join(shown.locator("body").inner_text().split())
    for row in Parsed(page).table("Verdicts"):
        assert " ".join(row[name][0] for name in ("File", "Backend", "Verdict")) in text.replace("✓ ", "")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 360, 768, 1280])
def test_no_width_overflows(opened: Open, width: int, scheme: str) -> None:
    page = opened(viewport={"width": width, "height": 800}, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    assert page.locator(".headline .verdict").bounding_box()["y"] < 400
    # What is wider than the page scrolls by itself, and the keyboard reaches it.
    assert page.evaluate(
        "[...document.querySelectorAll('main *')].filter(e => e.scrollWidth > e.clientWidth + 1 &&"
        " getComputedStyle(e).overflowX === 'auto' && e.tabIndex < 0).length"
    ) == 0  # fmt: skip


def test_the_schemes_differ_and_charts_follow(opened: Open) -> None:
    shades = {}
    for scheme in ("light", "dark"):
        page = opened(color_scheme=scheme)
        text = page.locator("#accuracy svg.chart:visible text").first
        shades[scheme] = (
            page.evaluate("getComputedStyle(document.body).backgroundColor"),
            text.evaluate("t => getComputedStyle(t).fill"),
        )
    assert all(a != b for a, b in zip(*shades.values(), strict=True))


def test_the_policy_refuses_a_request(browser: "Browser", shown: Path) -> None:
    page = browser.new_page()
    page.goto((shown / REPORT).as_uri())
    violated = page.evaluate(
        "new Promise(say => { document.addEventListener('securitypolicyviolation', e => say(e.effectiveDirective));"
        " fetch('http://127.0.0.1:9/').catch(() => {}); })"
    )
    assert violated == "connect-src"
    page.close()


def test_it_prints(opened: Open) -> None:
    page = opened()
    page.emulate_media(media="print")
    assert page.locator("nav").is_hidden()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.locator("#layers table").last.is_visible()  # paper has nothing to unfold
    assert len(page.pdf()) > 10_000
