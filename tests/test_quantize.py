"""Quantising a release adds two files and their evidence, in one step, and says how they came about."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from hwr_export import quantize as stage
from hwr_export.datasets import Dataset
from hwr_export.errors import DataError, QuantizationError, ReleaseError
from hwr_export.files import sha256_file
from hwr_export.qdq import DQ, Q, quantized_layers
from hwr_export.quantize import QuantizeConfig, quantize
from hwr_export.release import MANIFEST, QUANTIZATION, Release
from hwr_export.runners import onnx_runner
from hwr_export.spec import LOGITS
from tests.conftest import change_weight, one_json

QUICK = {"observer": "min-max", "images": 64, "held_out": 300}


def test_the_release_holds_both_files_and_how_they_came_about(quantized: Release) -> None:
    assert all(status.ok for status in quantized.verify())
    report = json.loads((quantized.path / QUANTIZATION).read_bytes())
    assert report["calibration"]["n"] == 64 == len(report["calibration"]["hashes"])
    assert report["calibration"]["split"] == "train"
    assert report["calibration"]["classes"] == 10
    assert report["held_out"]["n"] == 500
    assert [f["path"] for f in report["files"]] == ["model.int8.onnx", "model.int8-cpu.onnx"]
    for file in report["files"]:
        entry = quantized.entry(file["path"])
        assert entry.size_bytes == file["size_bytes"]
        assert set(entry.made_from) <= {f.sha256 for f in quantized.manifest.files}
        assert file["observer"] == "min-max"
        assert len(file["layers"]) == file["quantized_layers"] == 11
        assert file["cost"]["n"] == 500
    assert quantized.entry(QUANTIZATION).role == "quantization"


def test_the_int8_file_holds_to_the_scheme(quantized: Release) -> None:
    data = quantized.read(quantized.onnx("int8"))
    model = onnx.load_model_from_string(data)
    types = {t.data_type for t in model.graph.initializer if len(t.dims) > 1}
    assert types == {onnx.TensorProto.INT8}
    assert {node.domain for node in model.graph.node} == {""}
    metadata = {p.key: p.value for p in model.metadata_props}
    source = onnx.load_model_from_string(quantized.read(quantized.onnx("fp32")))
    assert metadata == {p.key: p.value for p in source.metadata_props}
    assert str(Path.cwd()).encode() not in data


def test_logits_are_not_rounded_to_eight_bits(quantized: Release, mnist_test: Dataset) -> None:
    for precision in ("int8", "int8-cpu"):
        with onnx_runner("onnxruntime", quantized.read(quantized.onnx(precision)), quantized.spec) as runner:
            logits = runner.infer_all(mnist_test.images[:200])[LOGITS]
        assert len(np.unique(logits)) > 1000


@pytest.mark.parametrize(("precision", "backend"), [
    ("int8", "openvino"), ("int8", "onnxruntime"),
    ("int8-cpu", "onnxruntime"),
])  # fmt: skip
def test_answers_stay(quantized: Release, mnist_test: Dataset, precision: str, backend: str) -> None:
    answers = {}
    for name in ("fp32", precision):
        with onnx_runner(backend, quantized.read(quantized.onnx(name)), quantized.spec) as runner:
            answers[name] = runner.infer_all(mnist_test.images[:500])[LOGITS].argmax(1)
    assert (answers[precision] == answers["fp32"]).mean() > 0.97


def test_tensorrt_gets_the_file_made_for_it_and_not_the_other(quantized: Release, hwr) -> None:
    result = hwr("trt", quantized.path, "--target", "sm86", "--json")
    assert result.exit_code == 0, result.output
    assert [e["precision"] for e in one_json(result.stdout)["engines"]] == ["fp32", "int8"]


def test_the_command_repeats_itself_bit_for_bit_and_prints_one_document(
    quantized: Release, release_dir: Path, hwr, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QuantizeConfig, "held_out", 500)
    result = hwr("quantize", release_dir, "--observer", "min-max", "--images", 64, "--json")
    assert result.exit_code == 0, result.output
    document = one_json(result.stdout)
    assert document["schema"] == 1
    for file in document["files"]:
        assert set(file) == {"path", "scheme", "size_bytes", "ratio_to_fp32", "calibration", "float_layers"}
        assert set(file["calibration"]) == {"n", "split", "sha256"}
        assert file["float_layers"] == []
        assert sha256_file(release_dir / file["path"]) == quantized.entry(file["path"]).sha256


def test_the_best_observer_is_chosen_and_all_are_recorded(release: Release) -> None:
    quantize(release, QuantizeConfig(images=32, held_out=200))
    for file in json.loads((release.path / QUANTIZATION).read_bytes())["files"]:
        costs = {name: (cost["flips"], cost["kl"]) for name, cost in file["observers"].items()}
        assert set(costs) == {"min-max", "histogram", "percentile"}
        assert costs[file["observer"]] == min(costs.values())


def test_a_budget_that_nothing_meets_leaves_the_release_as_it_was(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (release.path / MANIFEST).read_bytes()
    with pytest.raises(QuantizationError, match="no layer can be quantised within a budget of -100 points"):
        quantize(release, QuantizeConfig(**QUICK, budget_pt=-100))
    assert (release.path / MANIFEST).read_bytes() == before
    assert not (release.path / "model.int8.onnx").exists()


def test_a_calibration_image_from_the_evaluation_set_stops_the_command(
    release_dir: Path, tmp_path: Path, hwr, mnist_test: Dataset
) -> None:
    for part, each in (("train", 14), ("test", 1)):
        for label in range(10):
            folder = tmp_path / "own" / part / str(label)
            folder.mkdir(parents=True)
            for i in np.flatnonzero(mnist_test.labels == label)[:each]:
                Image.fromarray(mnist_test.images[i]).save(folder / f"{i}.png")
    result = hwr("quantize", release_dir, "--data", tmp_path / "own", "--images", 20)
    assert result.exit_code == 2
    assert "10 training image(s) of folder:own are also in its test part" in result.stderr
    assert not (release_dir / "model.int8.onnx").exists()


def test_a_changed_float_file_is_refused(release: Release) -> None:
    change_weight(release.path / "model.fp32.onnx")
    with pytest.raises(ReleaseError, match="not the file the manifest vouches for"):
        quantize(release, QuantizeConfig(**QUICK))


def test_data_that_is_not_there(release: Release, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="MNIST was not found"):
        quantize(release, QuantizeConfig(data_root=tmp_path))


def test_a_budget_keeps_the_costliest_layer_in_float_and_the_picture_is_drawn(
    release: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One layer's input saturates; with a budget it alone stays in float, in both the file and the report."""
    real = stage.int8_program

    def spoiling(*arguments: object) -> object:
        program = real(*arguments)
        quantizers = [n for n in program.graph.nodes if "quantized_decomposed.quantize_per_tensor" in str(n.target)]
        spoiled = quantizers[2]  # the pixels, what leaves the stem, and this: what blocks.0.conv2 alone reads
        for node in (spoiled, *spoiled.users):
            node.args = (node.args[0], node.args[1] / 60, *node.args[2:])
        return program

    monkeypatch.setattr(stage, "int8_program", spoiling)
    picture = tmp_path / "costs.png"
    summary = quantize(release, QuantizeConfig(**QUICK, budget_pt=0.5, plot=picture))
    assert summary["files"][0]["float_layers"] == ["blocks.0.conv2"]
    assert summary["files"][1]["float_layers"] == []
    model = onnx.load_model_from_string(release.read(release.onnx("int8")))
    assert "blocks.0.conv2" not in quantized_layers(model)
    assert {node.op_type for node in model.graph.node} >= {Q, DQ}
    assert picture.read_bytes().startswith(b"\x89PNG")
