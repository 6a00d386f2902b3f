"""`python -m train`: what it prints and how it ends."""

from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import TINY, one_json
from train.__main__ import main


def run(*arguments: object):
    return CliRunner().invoke(main, [str(a) for a in arguments])


@pytest.mark.parametrize("command", sorted(main.commands))
def test_every_command_has_help(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert main.commands[command].help


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("evaluate", "nowhere"), "there is no checkpoint"),
        (("card", "nowhere"), "there is no checkpoint"),
        (("fit", "nowhere.yaml", "-o", "r"), "there is no recipe"),
        (("fetch", "mnist", "--data", "/dev/null"), ""),
        (("samples", "mnist", "-n", 0, "-o", "s"), "positive number"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(tmp_path: Path, monkeypatch, arguments, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "fetch":
        monkeypatch.setattr("train.fetch.from_mirrors", lambda: {"x": b""})
    result = run(*arguments)
    assert result.exit_code in (1, 2)
    assert result.stdout == ""
    assert "Traceback" not in result.stderr
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_fit_prints_the_checkpoint(tmp_path: Path) -> None:
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"epochs": 1, "data": {"limit": 400}}))
    result = run("fit", recipe, "-o", tmp_path / "r")
    assert result.exit_code == 0, result.output
    assert result.stdout.strip() == str(tmp_path / "r" / "checkpoint.json")
    assert "epoch   1/1" in result.stderr


def test_samples_are_named_after_what_they_show(tmp_path: Path, release_dir: Path, hwr) -> None:
    result = run("samples", "mnist", "-n", 12, "-o", tmp_path / "s")
    paths = [Path(line) for line in result.stdout.split()]
    assert len(paths) == 12
    document = one_json(hwr("read", *paths, "--release", release_dir, "--json").stdout)
    right = [p.name.split("-")[1] == r["label"] for p, r in zip(paths, document["results"], strict=True)]
    assert sum(right) >= 9
