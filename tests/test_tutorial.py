"""Tutorial and how-to pages are executed as they stand, in a copy of the checkout; the site asks no network."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest

from hwr_export.release import Release
from tests.conftest import ROOT
from tests.test_docs import load_script

DOCS = ROOT / "docs"
TUTORIAL = DOCS / "tutorial.md"
# In an order in which each finds what an earlier one made: crops are made by fine-tune.
HOW_TO = [
    DOCS / "how-to" / f"{name}.md"
    for name in (
        "export-own-network", "quantise", "verdict", "engines", "latency-ci", "fine-tune", "renew", "drift", "search",
        "device",
    )
]  # fmt: skip
BLOCK = re.compile(r"(?:<!-- (?P<note>[^\n]*) -->\n)?```(?P<kind>\w+)\n(?P<text>.*?)```", re.DOTALL)
NOT_EXECUTED = re.compile(r"not executed: .{8,}")
SEEN_ONCE = re.compile(r"seen once: .{8,}")
EXIT_CODES = re.compile(r"exit code (?P<codes>\d(?:(?:, | or )\d)*): .{8,}")


@dataclass
class Block:
    """Commands of a page, what may come of them, and what the page says that one sees."""

    page: str
    commands: str
    codes: tuple[int, ...] = (0,)
    executed: bool = True
    seen: str = ""


def blocks(page: Path) -> list[Block]:
    """Read a page's blocks of commands, each with the text block that follows it."""
    found: list[Block] = []
    for match in BLOCK.finditer(page.read_text()):
        note, kind, text = match["note"], match["kind"], match["text"]
        if kind == "text":
            # Words may differ too where verdicts do: then the first line, a table's header, is looked for.
            found[-1].seen += text.splitlines()[0] if note and SEEN_ONCE.fullmatch(note) else text
            continue
        assert kind == "sh", f"{page.name}: a block of {kind} is neither executed nor what one sees"
        block = Block(page.name, text)
        if note and (codes := EXIT_CODES.fullmatch(note)):
            block.codes = tuple(map(int, re.findall(r"\d", codes["codes"])))
        elif note:
            assert NOT_EXECUTED.fullmatch(note), f"{page.name}: no reason in {note!r}"
            block.executed = False
        found.append(block)
    return found


def spaced(text: str) -> str:
    return " ".join(text.split())


def execute(block: Block, checkout: Path) -> None:
    """Run the commands of a block as someone in the checkout would, and look for what the page shows of them."""
    path = os.pathsep.join([str(checkout / ".bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(checkout), "COLUMNS": "200", "OMP_NUM_THREADS": "1"}
    ran = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block.commands],
        cwd=checkout, env=environment, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    output = spaced(ran.stdout + ran.stderr)
    assert ran.returncode in block.codes, f"{block.page}: exit code {ran.returncode} of\n{block.commands}\n{output}"
    for line in block.seen.splitlines():
        # Figures differ from machine to machine, words do not.
        for words in re.split(r"\S*\d\S*", line):
            assert spaced(words) in output, (
                f"{block.page}: {words!r} is not in the output of\n{block.commands}\n{output}"
            )


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files, without tests, in which `hwr-export` is the copy's own."""
    copy = tmp_path_factory.mktemp("clone")
    for name in ("hwr_export", "train"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(
        ROOT / "exported" / "digits", copy / "exported" / "digits", ignore=shutil.ignore_patterns("engines")
    )
    command = copy / ".bin" / "hwr-export"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nexec python -m hwr_export "$@"\n')
    command.chmod(0o755)
    return copy


@pytest.fixture(scope="module")
def tutored(checkout: Path) -> Path:
    """The copy after everything that the tutorial executes."""
    for block in blocks(TUTORIAL):
        if block.executed:
            execute(block, checkout)
    return checkout


def test_every_block_is_executed_or_says_why_not() -> None:
    assert sorted(HOW_TO) == sorted((DOCS / "how-to").glob("*.md"))
    found = [block for page in (TUTORIAL, *HOW_TO) for block in blocks(page)]
    assert sum(block.executed for block in found) > 25
    assert all(block.executed or not block.seen for block in found)


def test_the_tutorial_leads_to_a_release_that_reads(tutored: Path) -> None:
    release = Release.open(tutored / "exported" / "first")
    assert all(status.ok for status in release.verify())
    assert {f.role for f in release.manifest.files} >= {"onnx", "quantization", "parity", "bench", "engine", "goldens"}
    cells = json.loads((release.path / "parity.json").read_text())["cells"]
    assert {
        c["verdict"] for c in cells if c["precision"] == "fp32" and c["backend"] in ("onnxruntime", "openvino")
    } == {"PASS"}


@pytest.mark.parametrize("name", load_script("make_reference_pages").DOCUMENTS)
def test_the_reference_describes_the_documents_that_are_written(tutored: Path, name: str) -> None:
    described = load_script("make_reference_pages").DOCUMENTS[name][1]
    found: set[str] = set()

    def walk(value: object, path: str) -> None:
        if path in described:
            found.add(path)
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}.{key}" if path else key)
        elif isinstance(value, list) and f"{path}[]" in described:
            found.add(f"{path}[]")
        elif isinstance(value, list):
            for inner in value:
                walk(inner, f"{path}[]")
        else:
            pytest.fail(f"{name}: {path} is not described in scripts/make_reference_pages.py")

    for document in (tutored / "exported" / "first").glob(name):
        walk(json.loads(document.read_text()), "")
    assert found == set(described)


@pytest.mark.slow
def test_the_how_to_pages_do_what_they_say(tutored: Path) -> None:
    for page in HOW_TO:
        for block in blocks(page):
            if block.executed:
                execute(block, tutored)
    assert (tutored / "runs" / "first-2" / "renewal.json").is_file()
    assert (tutored / "runs" / "search" / "best.yaml").is_file()


def test_the_reference_pages_are_current() -> None:
    for name, page in load_script("make_reference_pages").PAGES.items():
        assert (DOCS / "reference" / name).read_text() == page(), name


# -- the site --------------------------------------------------------------------------------------------------------


class Requests(HTMLParser):
    """Collects what a browser would ask for to show a page; links that a reader may follow are none."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.found.append(given.get("href", ""))
        if tag not in ("a", "link"):
            self.found += [given[name] for name in ("src", "srcset", "data", "poster") if name in given]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(out)],
        cwd=ROOT, env=os.environ | {"NO_MKDOCS_2_WARNING": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert built.returncode == 0, built.stderr
    return out


def test_no_page_asks_a_network_for_anything(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        requests = Requests()
        requests.feed(page.read_text())
        assert requests.found, page
        for target in requests.found:
            assert not re.match(r"(https?:)?//", target), f"{page.relative_to(site)}: {target}"
    for style in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import\s+)[\"']?(https?:)?//", style.read_text()), style


def test_search_needs_no_server(site: Path) -> None:
    index = (site / "search" / "search_index.js").read_text()
    assert index.startswith("var __index = ")
    locations = {entry["location"] for entry in json.loads(index.removeprefix("var __index = "))["docs"]}
    assert {"tutorial.html", "how-to/verdict.html", "cli.html", "reference/recipe.html"} <= locations
    assert 'src="assets/iframe-worker.js"' in (site / "index.html").read_text()


def test_every_page_is_reached_from_the_navigation(site: Path) -> None:
    start = (site / "index.html").read_text()
    for page in site.rglob("*.html"):
        name = page.relative_to(site).as_posix()
        assert name == "404.html" or f'href="{name}"' in start, name
