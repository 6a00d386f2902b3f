"""The command: it prints a link, keeps what is answered, ends in order on Ctrl-C or SIGTERM, and goes on next time."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from http.cookiejar import CookieJar
from pathlib import Path

import pytest
from click.testing import Result

from tests.conftest import ROOT

LINK = re.compile(r"http://127\.0\.0\.1:(\d+)/\?token=[\w-]{43}")


def start(*words: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "hwr_export", "review", *map(str, words), "--no-browser"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)


def link(running: "subprocess.Popen[str]") -> tuple[str, str]:
    """Return the printed link, and where it leads."""
    assert running.stderr is not None
    said = ""
    for line in running.stderr:
        said += line
        if found := LINK.search(line):
            return found[0], f"http://127.0.0.1:{found[1]}"
    raise AssertionError(said)


def answer(page: str, origin: str, **said: object) -> dict:
    """Open the page as a browser does, and answer."""
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(CookieJar()))
    with browser.open(page, timeout=20) as opened:
        assert b"<title>Review</title>" in opened.read()
    body = json.dumps({"by": "anna", "look": 1} | said).encode()
    asked = urllib.request.Request(f"{origin}/api/answer", body, {"Content-Type": "application/json", "Origin": origin})
    with browser.open(asked, timeout=20) as found:
        return json.load(found)


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_answers_outlive_the_command(
    results: Path, tmp_path: Path, stop: signal.Signals, hwr: Callable[..., Result]
) -> None:
    labelled = tmp_path / "labelled"
    with start(results, "--labelled", labelled) as running:
        found = answer(*link(running), number=0, written="204817")
        assert found["progress"]["done"] == 1
        running.send_signal(stop)
        said = running.communicate(timeout=20)[1]
        if stop != signal.SIGKILL:
            assert running.returncode == 0
            assert "1 of 6 fields are settled; everything answered is kept in" in said
            assert (labelled / "labels.csv").read_text().count("\n") == 7
    assert len(list(labelled.glob("U+*/*.png"))) == 6
    done = hwr("review", results, "--export", tmp_path / "values.csv")
    assert "14 accepted, 1 settled by people, 5 open" in done.stdout


def test_a_port_that_is_taken_and_results_that_are_in_use(results: Path, hwr: Callable[..., Result]) -> None:
    with start(results) as running:
        _, origin = link(running)
        done = hwr("review", results, "--no-browser")
        assert (done.exit_code, "another `hwr-export review` shows these results" in done.stderr) == (2, True)
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=20)
    assert origin


def test_without_the_package_that_serves_it_the_extra_is_named(
    results: Path, hwr_process: Callable[..., "subprocess.CompletedProcess[str]"]
) -> None:
    done = hwr_process("review", results, without=("uvicorn",))
    assert (done.returncode, done.stderr) == (2, "Error: this needs uvicorn: pip install 'hwr-export[review]'\n")
