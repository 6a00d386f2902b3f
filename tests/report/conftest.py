"""One release with all its evidence, and one page of it, for all tests of the report."""

import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hwr_export.bench import bench
from hwr_export.parity import ParityConfig, parity
from hwr_export.release import REPORT, Release
from hwr_export.report import write_report
from hwr_export.roofline import profile
from hwr_export.subjects import BenchConfig


@pytest.fixture(scope="session")
def shown(_quantized: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with verdicts, latencies, a profile and its report; tests leave it as it is."""
    out = tmp_path_factory.mktemp("shown") / "tiny"
    shutil.copytree(_quantized, out)
    parity(Release.open(out), ParityConfig(backends=("onnxruntime",), corrupted=50))
    measured = BenchConfig(batches=(1, 4), seconds=0.02, backends=("onnxruntime",), starts=1)
    bench(Release.open(out), measured)
    profile(Release.open(out), measured)
    write_report(Release.open(out))
    return out


@pytest.fixture(scope="session")
def page(shown: Path) -> str:
    return (shown / REPORT).read_text()


@pytest.fixture
def evidence(shown: Path, tmp_path: Path) -> Release:
    """The same release, to be changed."""
    out = tmp_path / "tiny"
    shutil.copytree(shown, out)
    return Release.open(out)


class Page(HTMLParser):
    """A page as lists: `tags` (name, attributes) in order, `tables` by caption as rows of (text, data-value)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.tables: dict[str, list[list[tuple[str, str | None]]]] = {}
        self.words = ""
        self._rows: list[list[tuple[str, str | None]]] = []
        self._inside: list[str] = []
        self._caption = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {k: v or "" for k, v in attrs}
        self.tags.append((tag, attributes))
        self._inside.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append(("", attributes.get("data-value")))

    def handle_endtag(self, tag: str) -> None:
        while self._inside and self._inside.pop() != tag:
            pass
        if tag == "table":
            self.tables[" ".join(self._caption.split())] = self._rows

    def handle_data(self, data: str) -> None:
        if self._inside and self._inside[-1] in ("style", "script"):
            return
        self.words += data
        if "caption" in self._inside:
            self._caption += data
        elif "td" in self._inside or "th" in self._inside:
            text, value = self._rows[-1][-1]
            self._rows[-1][-1] = (" ".join((text + data).split()), value)

    def table(self, caption: str) -> list[dict[str, tuple[str, str | None]]]:
        """Return the rows of the table of this caption, else of one that begins so, by the names of its columns."""
        named = self.tables.get(caption)
        head, *rows = named or next(rows for name, rows in self.tables.items() if name.startswith(caption))
        return [dict(zip((text for text, _ in head), row, strict=True)) for row in rows]
