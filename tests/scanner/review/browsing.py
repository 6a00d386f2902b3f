"""What a person does at the page and sees of it, in words for tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Page

Window = Callable[..., "Page"]
LABELS = ("Customer number", "Reference", "Goods", "Total", "Note", "Express delivery")


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
