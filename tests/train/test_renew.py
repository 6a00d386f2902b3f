"""A renewed model is shipped only when it earned it."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from hwr_export.checkpoint import CHECKPOINT_JSON, load_checkpoint
from hwr_export.datasets import load_mnist
from hwr_export.errors import DataError, UsageError
from tests.conftest import silent
from train.__main__ import main
from train.renew import CANDIDATE, RENEWAL, renew


def crops(folder: Path, turned: bool, labels_off_by: int = 0, per_class: int = 60) -> Path:
    """Write images of digits the tiny model has not seen, upright or as a scanner that lies on its side sees them."""
    data = load_mnist("train")
    for label in range(10):
        indices = np.flatnonzero(data.labels[30_000:] == label)[:per_class] + 30_000
        for i in indices:
            pixels = np.rot90(data.images[i]) if turned else data.images[i]
            target = folder / str((label + labels_off_by) % 10)
            target.mkdir(parents=True, exist_ok=True)
            Image.fromarray(255 - np.ascontiguousarray(pixels)).resize((56, 56)).save(target / f"{i}.png")
    return folder


def test_a_model_that_learns_a_new_scanner_and_keeps_the_old_is_promoted(run_dir: Path, tmp_path: Path) -> None:
    new = crops(tmp_path / "new", turned=True)
    out = tmp_path / "out"
    arguments = ["renew", run_dir, "--new-data", new, "-o", out, "--margin", "6", "--epochs", "8", "--json"]
    done = CliRunner().invoke(main, [str(a) for a in arguments])
    report = json.loads(done.stdout)
    assert done.exit_code == 0, report
    assert report["promoted"] is True
    assert report["on_new"]["accuracy_new"] > report["on_new"]["accuracy_old"] + 0.3
    assert report["on_old"]["n"] == 10_000
    assert report["new_data"]["test"] == pytest.approx(180, abs=10)
    shipped, candidate, old = (load_checkpoint(p).info for p in (out, out / CANDIDATE, run_dir))
    assert shipped.weights == candidate.weights != old.weights
    assert shipped.parents == {"start": old.weights.sha256}
    assert shipped.preprocessing == old.preprocessing
    assert json.loads((out / RENEWAL).read_text()) == report


def test_wrong_labels_leave_the_old_checkpoint_in_place(run_dir: Path, tmp_path: Path) -> None:
    new = crops(tmp_path / "new", turned=False, labels_off_by=1, per_class=20)
    out = tmp_path / "out"
    done = CliRunner().invoke(main, ["renew", str(run_dir), "--new-data", str(new), "-o", str(out), "--epochs", "1"])
    assert done.exit_code == 1
    assert "The old checkpoint stays: not shown" in done.stdout
    assert (out / CHECKPOINT_JSON).read_bytes() == (run_dir / CHECKPOINT_JSON).read_bytes()
    load_checkpoint(out)


def test_a_second_renewal_replays_the_first(run_dir: Path, tmp_path: Path) -> None:
    first = crops(tmp_path / "first", turned=True, per_class=20)
    out = tmp_path / "out"
    renew(run_dir, first, out, None, silent(), epochs=1)
    with pytest.raises(DataError, match=r"1 set\(s\) of images that no renewal of this checkpoint took"):
        renew(run_dir, first, tmp_path / "x", None, silent(), replay=[first])
    candidate = out / CANDIDATE
    second = crops(tmp_path / "second", turned=False, per_class=25)
    for path in second.rglob("*.png"):  # the first crops' digits lie on their side: other content
        if (first / path.relative_to(second)).exists():
            path.unlink()
    with pytest.raises(DataError, match=r"renewed before, with 1 set\(s\) .* would be forgotten; name each with --rep"):
        renew(candidate, second, tmp_path / "y", None, silent())
    report = renew(candidate, second, tmp_path / "z", None, silent(), replay=[first], epochs=1)
    renewals = load_checkpoint(tmp_path / "z" / CANDIDATE).info.data["renewals"]
    assert [r["train"] + r["validation"] + r["test"] for r in renewals] == [200, 50]
    assert report["on_old"]["n"] == 10_000 + renewals[0]["test"]


def test_images_that_are_known_already_are_refused(run_dir: Path, tmp_path: Path) -> None:
    data = load_mnist("test")
    for i in range(10):
        (tmp_path / "new" / str(i)).mkdir(parents=True)
        Image.fromarray(data.images[np.flatnonzero(data.labels == i)[0]]).save(tmp_path / "new" / str(i) / "a.png")
    from hwr_export.datasets import Dataset
    from train import renew as module

    known = Dataset("mnist", "test", data.images[:0], data.labels[:0], None, data.label_set, "")
    fresh = module.load_labelled(tmp_path / "new", "0123456789", (28, 28))
    same = Dataset("x", "train", fresh.images[:3], fresh.labels[:3], None, fresh.label_set, "")
    with pytest.raises(DataError, match="3 of the new images are among the old ones already"):
        module._parts(fresh, [known, same], 0)


def test_what_cannot_be_renewed_is_refused(run_dir: Path, tmp_path: Path) -> None:
    new = crops(tmp_path / "new", turned=False, per_class=3)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("x")
    with pytest.raises(UsageError, match="exists and is not empty; pass --resume"):
        renew(run_dir, new, tmp_path / "out", None, silent())
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in run_dir.iterdir():
        if path.is_file():
            (copy / path.name).write_bytes(path.read_bytes())
    document = json.loads((copy / CHECKPOINT_JSON).read_text())
    document["data"]["train"]["sha256"] = "0" * 64
    (copy / CHECKPOINT_JSON).write_text(json.dumps(document))
    with pytest.raises(DataError, match=r"mnist is not what .* was trained on any more"):
        renew(copy, new, tmp_path / "other", None, silent())
    document["recipe"] = None
    (copy / CHECKPOINT_JSON).write_text(json.dumps(document))
    with pytest.raises(UsageError, match="only such a checkpoint can be renewed"):
        renew(copy, new, tmp_path / "other", None, silent())
