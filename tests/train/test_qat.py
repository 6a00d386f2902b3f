"""What learns under simulated rounding is what the exported file computes, and an ordinary checkpoint comes out."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hwr_export.checkpoint import load_checkpoint
from hwr_export.datasets import Dataset
from hwr_export.errors import DataError, QuantizationError, UsageError
from hwr_export.export import ExportConfig, export_onnx
from hwr_export.program import program_from_network
from hwr_export.quantize import QuantizeConfig, quantize
from hwr_export.quantizer import activation_observers, int8_program
from hwr_export.release import QUANTIZATION
from tests.conftest import silent
from train.fit import normalise, to_unit
from train.qat import prepared_for_qat, qat


@pytest.fixture(scope="module")
def tuned(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("qat") / "tiny"
    qat(run_dir, out, None, silent(), epochs=2)
    return out


def test_the_file_computes_what_was_trained(run_dir: Path, mnist_test: Dataset) -> None:
    source = load_checkpoint(run_dir)
    p, images = source.info.preprocessing, torch.tensor(mnist_test.images[:200])
    rounded = prepared_for_qat(source.module, images, (p.mean, p.std))
    observers = activation_observers(rounded)
    assert all(float(one.zero_point) == 0 for one in observers)
    from torchao.quantization.pt2e import disable_observer

    rounded.apply(disable_observer)
    with torch.no_grad():
        expected = rounded(normalise(to_unit(images), p.mean, p.std)).numpy()
    spec = source.info.spec()
    scales = [float(one.scale) for one in observers]
    program = int8_program(program_from_network(source.module, spec), spec, mnist_test.images[:4], "trained", scales)
    with torch.no_grad():
        found = program.module()(images)[0].numpy()
        plain = source.module(normalise(to_unit(images), p.mean, p.std)).numpy()
    # A sum that lies on the edge of two levels may fall to either side; what rounding does at all is far more.
    assert np.abs(found - expected).mean() < 0.1 * np.abs(plain - expected).mean()


def test_batch_norm_stands_still_and_the_weights_move(run_dir: Path, tuned: Path) -> None:
    before, after = (load_checkpoint(path).module.state_dict() for path in (run_dir, tuned))
    for name, value in before.items():
        assert torch.equal(value, after[name]) == ("running" in name or "num_batches" in name), name


def test_an_ordinary_checkpoint_comes_out_and_its_scales_are_used(
    tuned: Path, run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwr_export.quantize.OBSERVERS", ("min-max",))
    checkpoint, source = load_checkpoint(tuned), load_checkpoint(run_dir)
    assert checkpoint.info.parents == {"float": source.info.weights.sha256}
    assert len(checkpoint.info.activation_scales) == 12
    release = export_onnx(checkpoint, tmp_path / "r", ExportConfig("tiny", max_batch=16))
    quantize(release, QuantizeConfig(images=32, held_out=200))
    files = json.loads((release.path / QUANTIZATION).read_bytes())["files"]
    assert set(files[0]["observers"]) == {"trained", "min-max"}
    assert "trained" not in files[1]["observers"]
    assert files[0]["observers"]["trained"]["flips"] <= 10


def test_the_report_compares_before_and_after(tuned: Path) -> None:
    report = json.loads((tuned / "qat.json").read_bytes())
    assert list(report["rows"]) == ["float before", "int8 before", "float after", "int8 after"]
    assert report["rows"]["float before"]["flips"] == 0
    assert report["rows"]["float before"]["divergence"] == 0
    assert report["rows"]["int8 after"]["accuracy"] > report["rows"]["float before"]["accuracy"] - 0.03
    records = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    assert [record["epoch"] for record in records] == [1, 2]
    assert records[1]["train_loss"] < records[0]["train_loss"]
    best = min(records, key=lambda record: record["validation_divergence"])
    assert report["epoch"] == best["epoch"]


def test_a_directory_that_holds_a_run_is_refused(tuned: Path, run_dir: Path) -> None:
    with pytest.raises(UsageError, match="already holds a run"):
        qat(run_dir, tuned, None, silent())


def test_a_checkpoint_without_a_recipe_is_refused(run_dir: Path, tmp_path: Path) -> None:
    changed(run_dir, tmp_path / "c", recipe=None)
    with pytest.raises(UsageError, match="does not come from one of our recipes"):
        qat(tmp_path / "c", tmp_path / "out", None, silent())


def test_other_validation_data_are_refused(run_dir: Path, tmp_path: Path) -> None:
    document = json.loads((run_dir / "checkpoint.json").read_bytes())
    document["data"]["validation"]["sha256"] = "0" * 64
    changed(run_dir, tmp_path / "c", data=document["data"])
    with pytest.raises(DataError, match=r"the validation part of mnist is not the one that .* was held away from"):
        qat(tmp_path / "c", tmp_path / "out", None, silent())
    assert not (tmp_path / "out").exists()


def test_scales_of_another_network_are_refused(run_dir: Path, mnist_test: Dataset) -> None:
    source = load_checkpoint(run_dir)
    spec = source.info.spec()
    program = program_from_network(source.module, spec)
    with pytest.raises(QuantizationError, match="has 2 scales of activations and the network 12 to set"):
        int8_program(program, spec, mnist_test.images[:4], "trained", [0.1, 0.2])


def changed(source: Path, target: Path, **values: object) -> None:
    """Copy a checkpoint with other words in its JSON."""
    target.mkdir()
    document = json.loads((source / "checkpoint.json").read_bytes()) | values
    (target / "checkpoint.json").write_text(json.dumps(document))
    name = document["weights"]["file"]
    (target / name).write_bytes((source / name).read_bytes())
