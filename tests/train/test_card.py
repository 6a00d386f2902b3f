"""`MODEL_CARD.md` of a run: from its own files, with or without an evaluation."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from hwr_export.datasets import Dataset
from hwr_export.errors import CheckpointError, DataError, UsageError
from hwr_export.release import Release
from tests.conftest import silent
from tests.train.test_cli import run
from tests.train.test_evaluate import hw62
from train.card import write_card
from train.evaluate import evaluate, write_evaluation


@pytest.fixture
def own_run(run_dir: Path, tmp_path: Path) -> Path:
    out = tmp_path / "run"
    shutil.copytree(run_dir, out)
    return out


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory, mnist_test: Dataset) -> Path:
    """A data root with a handful of images."""
    return hw62(tmp_path_factory.mktemp("few"), mnist_test)


@pytest.fixture(scope="module")
def document(run_dir: Path, few: Path) -> dict:
    return evaluate(run_dir, "hw62", few, silent())


def info_of(run_dir: Path) -> dict:
    return json.loads((run_dir / "checkpoint.json").read_text())


def change(run_dir: Path, **values: object) -> None:
    (run_dir / "checkpoint.json").write_text(json.dumps(info_of(run_dir) | values))


def test_a_card_before_any_evaluation(own_run: Path) -> None:
    path = write_card(own_run)
    assert path == own_run / "MODEL_CARD.md"
    card, info = path.read_text(), info_of(own_run)
    assert card.startswith("# tiny\n")
    for fact in (
        "`0123456789`",
        f"{info['parameters']:,} parameters",
        f"| train | {info['data']['train']['n']:,} | `{info['data']['train']['sha256'][:16]}` |",
        f"| validation | {info['data']['validation']['n']:,} |",
        "| learning_rate | 0.01 |",
        f"| {info['metrics']['epoch']} (kept) |",
        f"temperature {info['temperature']:.4f}",
        f"confidence below {info['reject_below']:.4f} are rejected",
        f"torch {info['versions']['torch']}",
        "Not evaluated yet: run `python -m train evaluate RUN -o RUN`",
        "nothing of the kind was part of a recorded training",
        "`python -m train fit recipe.yaml -o runs/tiny`",
    ):
        assert fact in card, fact
    assert str(own_run.parent) not in card
    with Image.open(own_run / "curves.png") as image:
        assert image.size == (1400, 420)
    before = path.read_bytes()
    assert write_card(own_run).read_bytes() == before


def test_a_card_with_evaluations(own_run: Path, document: dict) -> None:
    write_evaluation(document, own_run)
    elsewhere = document | {"data": "elsewhere", "n": 483, "warning": "a warning, no target"}
    write_evaluation(elsewhere, own_run / "elsewhere")
    write_evaluation(elsewhere | {"data": "of-another-model", "weights_sha256": "0" * 64}, own_run / "other")
    card = write_card(own_run).read_text()
    assert f"| accuracy | {100 * document['accuracy']:.2f} % | {100 * document['ci95'][0]:.2f} to " in card
    assert "On 21 test images of `hw62`, with torch" in card
    assert "![confusion](confusion.png)" in card
    for kind, row in document["garbage"]["kinds"].items():
        assert f"| {kind} | {row['n']:,} | {row['most_often']} | {100 * row['accepted']['shipped']:.2f} % |" in card
    assert "| `elsewhere` | 483 |" in card
    assert "| a warning, no target |" in card
    assert f"**{document['warning']}.**" in card
    assert "of-another-model" not in card


def test_an_evaluation_of_other_weights_is_not_shown(own_run: Path, document: dict) -> None:
    write_evaluation(document | {"weights_sha256": "0" * 64}, own_run)
    card = write_card(own_run).read_text()
    assert "evaluation.json in this directory is of other weights" in card
    assert "| accuracy |" not in card


def test_a_checkpoint_from_elsewhere_has_a_card_too(own_run: Path) -> None:
    (own_run / "metrics.jsonl").unlink()
    change(own_run, recipe=None, data=None, seed=None, metrics={}, versions={}, reject_below=0.0)
    card = write_card(own_run).read_text()
    for text in (
        "Not recorded.",
        "None: the weights came from elsewhere.",
        "No metrics were kept.",
        "every answer is accepted",
        "how to make it again is not recorded",
    ):
        assert text in card
    assert not (own_run / "curves.png").exists()


def test_the_card_says_what_was_learned_from(own_run: Path) -> None:
    info = info_of(own_run)
    change(own_run, parents={"teacher": "ab" * 32}, recipe=info["recipe"] | {"garbage_weight": 0.5})
    card = write_card(own_run).read_text()
    assert f"| learned from (teacher) | `{'ab' * 8}` |" in card
    assert "| garbage_weight | 0.5 |" in card
    assert "trained to be unsure of some kinds of it" in card


def test_evaluating_into_a_run_renews_its_card(own_run: Path, few: Path) -> None:
    write_card(own_run)
    result = run("evaluate", own_run, "--data", "hw62", "--data-root", few, "-o", own_run)
    assert result.exit_code == 0, result.output
    assert result.stdout.split()[-1] == str(own_run / "MODEL_CARD.md")
    assert "Not evaluated yet" not in (own_run / "MODEL_CARD.md").read_text()


def test_the_command_prints_the_card(own_run: Path) -> None:
    result = run("card", own_run)
    assert result.exit_code == 0
    assert result.stdout.strip() == str(own_run / "MODEL_CARD.md")


def test_no_card_of_what_is_no_run(own_run: Path, release: Release, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        write_card(tmp_path)
    with pytest.raises(UsageError, match="is a release, whose card `hwr-export` writes"):
        write_card(release.path)
    with (own_run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "train')
    with pytest.raises(DataError, match=r"line 4 of .*metrics\.jsonl is not JSON"):
        write_card(own_run)
    (own_run / "metrics.jsonl").write_text('{"epoch": 1}\n')
    with pytest.raises(DataError, match=r"line 1 of .*metrics\.jsonl lacks learning_rate, train_loss"):
        write_card(own_run)
    (own_run / "metrics.jsonl").unlink()
    (own_run / "evaluation.json").write_text('{"schema": 1}')
    with pytest.raises(DataError, match=r"evaluation\.json is not an evaluation that this version wrote"):
        write_card(own_run)
    (own_run / "evaluation.json").write_text("[]")
    with pytest.raises(DataError, match=r"evaluation\.json is list, expected a JSON object"):
        write_card(own_run)
    assert not (own_run / "MODEL_CARD.md").exists()
