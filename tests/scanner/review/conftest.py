"""A folder of results of two pages with six referred fields, made once; tests get copies of their own."""

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from hwr_export.datasets import Dataset
from hwr_export.scanner.review.crops import Crops
from hwr_export.scanner.review.desk import Desk
from hwr_export.scanner.review.pictures import Pictures
from hwr_export.scanner.review.referred import Referred
from hwr_export.scanner.review.results_folder import Folder
from hwr_export.scanner.review.store import Store
from tests.scanner.review.browsing import Window
from tests.scanner.review.pages import WRITTEN, Filled, Misread, make_results
from tests.scanner.review.serving import Served, served

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PAGES = {
    "first.png": Filled(
        referred={
            "customer": Misread("204811", (0.99, 0.97, 0.99, 0.9, 0.99, 0.55), alternatives=("204817", "204877")),
            "reference": Misread("", reasons=("no-valid-reading",)),
            "goods": Misread("   12050", (), ("rule-sum",)),
            "total": Misread("   12645", (1, 1, 1, 0.99, 0.99, 0.64, 0.98, 0.99), ("rule-sum", "doubtful")),
        },
        degrees=2.0,
    ),
    "second.png": Filled(
        referred={
            "note": Misread("7O215".replace("O", "0"), (0.99, 0.8)),
            "express": Misread("no", reasons=("doubtful-mark",)),
        },
        degrees=181.5,
        written=WRITTEN | {"customer": "339061"},
    ),
}


@pytest.fixture(scope="session")
def handwriting(mnist_test: Dataset) -> list[np.ndarray]:
    """Images by digit."""
    return [mnist_test.images[mnist_test.labels == digit][:200] for digit in range(10)]


@pytest.fixture(scope="session")
def _results(tmp_path_factory: pytest.TempPathFactory, handwriting: list[np.ndarray]) -> Path:
    return make_results(tmp_path_factory.mktemp("review"), PAGES, handwriting)


@pytest.fixture
def results(_results: Path, tmp_path: Path) -> Path:
    """The folder, with its pages beside it."""
    shutil.copytree(_results.parent, tmp_path / "scans")
    copy = tmp_path / "scans" / "results"
    text = (copy / "results.jsonl").read_text().replace(str(_results.parent), str(copy.parent))
    (copy / "results.jsonl").write_text(text)
    return copy


Opened = Callable[..., Desk]


@pytest.fixture
def desk(results: Path) -> Iterator[Opened]:
    """Open the review, as often as a test likes: each time the one before is closed, as after a kill."""
    open_now = ExitStack()

    def open_(two_pass: bool = False, labelled: Path | None = None) -> Desk:
        open_now.close()
        folder = Folder(results)
        store = open_now.enter_context(Store(results, two_pass))
        referred = Referred(folder)
        open_now.callback(referred.close)
        pictures = Pictures(folder.layout)
        crops = None if labelled is None else Crops(labelled, folder.layout, pictures, store.ledger.id)
        return Desk(folder, referred, store, pictures, crops)

    yield open_
    open_now.close()


@pytest.fixture
def windows(browser: "Browser") -> Iterator[Window]:
    """Open windows of a review; afterwards nothing may have been complained about, and nobody else asked."""
    said: list[str] = []
    asked: set[str] = set()
    contexts = []

    def open_(review: Served, **settings: Any) -> "Page":
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 800}} | settings)
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
