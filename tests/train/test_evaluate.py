"""`python -m train evaluate`: what is measured, written and refused."""

import gzip
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwr_export.checkpoint import CheckpointInfo, load_checkpoint, save_checkpoint, weights_bytes, weights_file
from hwr_export.datasets import Dataset
from hwr_export.labels import ALPHANUMERIC
from hwr_export.models import build_model
from hwr_export.release import Release
from hwr_export.spec import Preprocessing
from tests.conftest import one_json
from tests.datasets.test_idx import to_idx
from tests.train.test_cli import run

KEYS = [
    "schema",
    "checkpoint",
    "weights_sha256",
    "backend",
    "parameters",
    "data",
    "data_sha256",
    "warning",
    "n",
    "left_out",
    "without_ink",
    "accuracy",
    "error_percent",
    "ci95",
    "ci95_clustered_by",
    "top3_accuracy",
    "top3_ci95",
    "merged_accuracy",
    "merged_ci95",
    "ece",
    "ece_before_temperature",
    "temperature",
    "reject_below",
    "rejected",
    "error_accepted",
    "error_at_rejection",
    "at_rejection",
    "aurc",
    "garbage_accepted",
    "garbage",
    "per_class",
    "risk_coverage",
    "reliability",
    "labels",
    "confusion",
]
SYNTHETIC = ["noise", "blobs", "blanks", "strokes", "specks", "punctuation", "bars"]


@pytest.fixture(scope="module")
def evaluated(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("evaluated") / "deep"
    result = run("evaluate", run_dir, "-o", out, "--json")
    assert result.exit_code == 0, result.output
    assert one_json(result.stdout) == json.loads((out / "evaluation.json").read_text())
    return out


@pytest.fixture(scope="module")
def document(evaluated: Path) -> dict:
    return json.loads((evaluated / "evaluation.json").read_text())


def test_the_document_is_complete_and_agrees_with_itself(document: dict, run_dir: Path) -> None:
    assert list(document) == KEYS
    assert document["schema"] == 1
    assert document["weights_sha256"] == load_checkpoint(run_dir).info.weights.sha256
    n, confusion = document["n"], np.array(document["confusion"])
    assert n == confusion.sum() == 10_000
    assert np.trace(confusion) / n == document["accuracy"]
    assert document["error_percent"] == pytest.approx(100 * (1 - document["accuracy"]))
    assert document["ci95"][0] < document["accuracy"] < document["ci95"][1]
    assert {document[key] for key in ("top3_accuracy", "merged_accuracy", "warning")} == {None}
    for i, (label, row) in enumerate(document["per_class"].items()):
        assert label == document["labels"][i]
        assert row["n"] == confusion[i].sum()
        assert row["accuracy"] == pytest.approx(confusion[i, i] / row["n"])
        j = document["labels"].index(row["taken_for"])
        assert row["taken_for_n"] == confusion[i, j] == np.delete(confusion[i], i).max()


def test_the_curve_goes_through_the_points_of_rejection(document: dict) -> None:
    curve = document["risk_coverage"]
    assert curve["coverage"][0] == 1
    assert curve["risk"][0] == pytest.approx(1 - document["accuracy"])
    assert len(curve["coverage"]) == len(curve["risk"]) <= 200
    assert list(document["at_rejection"]) == ["1 %", "2 %", "3 %", "5 %"]
    for share, point in document["at_rejection"].items():
        assert point["rejected"] + point["accepted"] == document["n"]
        assert point["wrong"] / point["accepted"] == point["error"] == document["error_at_rejection"][share]
        assert np.interp(-point["accepted"] / document["n"], -np.array(curve["coverage"]), curve["risk"]) == (
            pytest.approx(point["error"], rel=0.1)
        )
    assert 0 < document["aurc"] < 1 - document["accuracy"]


def test_calibration_is_reported_before_and_after(document: dict) -> None:
    for when, ece in (("before", "ece_before_temperature"), ("after", "ece")):
        bins = document["reliability"][when]
        assert sum(b["n"] for b in bins) == document["n"]
        gap = sum(b["n"] * abs(b["accuracy"] - b["confidence"]) for b in bins) / document["n"]
        assert document[ece] == pytest.approx(gap)
    assert document["temperature"] != 1
    assert document["ece"] != document["ece_before_temperature"]


def test_garbage_is_counted_by_kind_at_both_thresholds(document: dict) -> None:
    garbage = document["garbage"]
    assert garbage["thresholds"] == {
        "shipped": document["reject_below"],
        "3 %": document["at_rejection"]["3 %"]["confidence"],
    }
    assert [kind for kind, row in garbage["kinds"].items() if row["synthetic"]] == SYNTHETIC
    for row in garbage["kinds"].values():
        assert row["n"] > 0
        assert row["accepted"].keys() == garbage["thresholds"].keys()
        assert all(0 <= share <= 1 for share in row["accepted"].values())
        assert row["most_often"] in document["labels"]
    shares = [garbage["kinds"][kind]["accepted"]["shipped"] for kind in SYNTHETIC]
    assert document["garbage_accepted"] == pytest.approx(np.mean(shares))


def test_the_pictures_are_pictures(evaluated: Path) -> None:
    assert sorted(p.name for p in evaluated.iterdir()) == ["confusion.png", "evaluation.json", "risk-coverage.png"]
    for name in ("confusion.png", "risk-coverage.png"):
        with Image.open(evaluated / name) as image:
            assert image.format == "PNG"
            assert min(image.size) > 400
            assert len(image.convert("RGB").getcolors(1 << 20)) > 50


def test_a_release_answers_as_its_checkpoint(document: dict, release: Release) -> None:
    result = run("evaluate", release.path, "--data", "mnist", "--json")
    assert result.exit_code == 0, result.output
    found = one_json(result.stdout)
    assert [document["backend"], found["backend"]] == ["torch", "onnxruntime"]
    assert list(found) == KEYS
    for key in ("weights_sha256", "parameters", "data_sha256", "confusion", "per_class"):
        assert found[key] == document[key], key
    assert found["ece"] == pytest.approx(document["ece"], abs=1e-5)


def test_the_tables_show_the_figures(run_dir: Path, tmp_path: Path, mnist_test: Dataset) -> None:
    root = hw62(tmp_path, mnist_test)
    out = run("evaluate", run_dir, "--data", "hw62", "--data-root", root).stdout
    for word in ("accuracy", "ece before, after", "wrong when 3 % are rejected", "punctuation", "most often taken for"):
        assert word in out


def hw62(root: Path, data: Dataset) -> Path:
    """Twenty real digits, a letter and an empty image, named as hw62 names them."""
    folder = root / "hw62" / "images"
    folder.mkdir(parents=True)
    for i in range(20):
        Image.fromarray(255 - data.images[i]).resize((56, 56)).save(folder / f"DIGIT_{data.labels[i]}_{i}.png")
    Image.fromarray(255 - data.images[0]).save(folder / "CAP_Z_0.png")
    Image.new("L", (40, 40), 230).save(folder / "DIGIT_5_99.png")
    return root


def test_hw62_is_a_warning_on_the_characters_the_model_knows(run_dir: Path, tmp_path: Path, mnist_test) -> None:
    result = run("evaluate", run_dir, "--data", "hw62", "--data-root", hw62(tmp_path, mnist_test), "--json")
    found = one_json(result.stdout)
    assert (found["n"], found["left_out"], found["without_ink"]) == (21, 1, 1)
    assert found["accuracy"] > 0.7
    assert found["ci95_clustered_by"] is None
    assert "never a target to tune on" in found["warning"]
    assert "another country's hands and another camera, never a target to tune on." in result.stderr
    assert "left out 1 images of hw62 whose character the model does not know" in result.stderr
    assert "chars62 was not found" in result.stderr  # said, not skipped in silence
    assert "letters" not in found["garbage"]["kinds"]


@pytest.fixture
def chars62(tmp_path: Path) -> Path:
    """A made chars62 and an untrained network of its 62 classes."""
    rng = np.random.default_rng(0)
    folder = tmp_path / "data" / "chars62"
    folder.mkdir(parents=True)
    labels = np.repeat(np.arange(62, dtype=np.uint8), 2)
    images = rng.integers(0, 256, (124, 28, 28)).astype(np.uint8)
    for name, array in (("images-idx3", images), ("labels-idx1", labels)):
        (folder / f"test-{name}-ubyte.gz").write_bytes(gzip.compress(to_idx(array)))
    model = build_model("edge", 62, {"channels": [8, 8, 12, 16]})
    weights = weights_bytes(model)
    info = CheckpointInfo(
        name="untrained",
        kind="architecture",
        architecture="edge",
        config={"channels": [8, 8, 12, 16]},
        labels=ALPHANUMERIC,
        preprocessing=Preprocessing(),
        parameters=1,
        weights=weights_file(weights),
    )
    (tmp_path / "untrained").mkdir()
    save_checkpoint(tmp_path / "untrained", info, weights)
    return tmp_path


def test_many_classes_have_top_3_and_merged_cases(chars62: Path) -> None:
    result = run("evaluate", chars62 / "untrained", "--data", "chars62", "--data-root", chars62 / "data", "--json")
    found = one_json(result.stdout)
    assert list(found) == KEYS
    assert found["accuracy"] <= found["merged_accuracy"] <= 1
    assert found["accuracy"] <= found["top3_accuracy"] <= 1
    for key in ("merged", "top3"):
        assert found[f"{key}_ci95"][0] <= found[f"{key}_accuracy"] <= found[f"{key}_ci95"][1]
    assert list(found["garbage"]["kinds"]) == SYNTHETIC  # letters are no garbage to a model that knows them
    assert found["rejected"] == 0  # without a threshold everything is accepted
    assert found["garbage_accepted"] == 1


def test_merging_and_top_3_count_what_they_say() -> None:
    from train.evaluate import _more_accuracies

    labels = "0Cc123456789"
    images = np.zeros((4, 28, 28), np.uint8)
    data = Dataset("made", "test", images, np.array([1, 2, 0, 5]), None, labels, "")
    probabilities = np.full((4, 12), 0.01)
    probabilities[0, 2] = 0.9  # C taken for c: right once merged, and not in the best three
    probabilities[0, [3, 4]] = 0.05
    probabilities[1, 2] = 0.9  # c as c
    probabilities[2, [3, 4, 0]] = 0.5, 0.3, 0.1  # third best
    probabilities[3, [3, 4, 6]] = 0.5, 0.3, 0.1  # fourth
    found = _more_accuracies(probabilities, data, labels)
    assert found["merged_accuracy"] == 0.5
    assert found["top3_accuracy"] == 0.5


def test_cases_that_are_one_class_count_together() -> None:
    from train.evaluate import _more_accuracies

    data = Dataset("made", "test", np.zeros((1, 28, 28), np.uint8), np.array([2]), None, "0Cc", "")
    assert _more_accuracies(np.array([[0.4, 0.3, 0.3]]), data, "0Cc")["merged_accuracy"] == 1
    assert _more_accuracies(np.array([[0.7, 0.2, 0.1]]), data, "0Cc")["merged_accuracy"] == 0


def test_what_cannot_be_evaluated_is_one_sentence(run_dir: Path, chars62: Path, release: Release) -> None:
    chars_root = chars62 / "data"
    file = chars62 / "file"
    file.write_text("")
    changed = chars62 / "changed"
    shutil.copytree(run_dir, changed)
    info = json.loads((changed / "checkpoint.json").read_text())
    info["data"]["test"]["sha256"] = "0" * 64
    (changed / "checkpoint.json").write_text(json.dumps(info))
    letters = chars62 / "letters"
    shutil.copytree(run_dir, letters)
    info["labels"] = "[]{}<>|~^_"
    (letters / "checkpoint.json").write_text(json.dumps(info))
    for arguments, message in (
        ((run_dir, "--data", "emnist"), "no dataset 'emnist'; known: chars62, emnist-balanced"),
        ((run_dir, "--data", "hw62", "--data-root", chars_root), "hw62 was not found"),
        ((chars62 / "untrained",), "untrained does not say what data it was trained on; name those"),
        ((changed,), "the test part of mnist is not the one that tiny was held away from in training"),
        ((letters, "--data", "mnist"), "mnist shows none of the characters that the model knows"),
        ((run_dir, "-o", file), "file exists and is not a directory"),
        ((run_dir, "-o", release.path), "is a release, which holds what its manifest names and nothing else"),
    ):
        result = run("evaluate", *arguments)
        assert result.exit_code == 2
        assert result.stdout == ""
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert file.read_text() == ""
