"""Parity finds what changes an answer, and never skips."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from hwr_export.checkpoint import read_info
from hwr_export.errors import ReleaseError, UsageError
from hwr_export.files import sha256_file
from hwr_export.goldens import Goldens
from hwr_export.parity import ParityConfig, parity
from hwr_export.release import CHECKPOINT, GOLDENS, MANIFEST, PARITY, Release
from tests.conftest import MAX_BATCH, ROOT, backends_here, change_weight, one_json
from tests.faults import with_integers

QUICK = {"corrupted": 100}


def bless(release_dir: Path) -> None:
    """Make the manifest vouch for the model as it lies there, as a forger would."""
    manifest = json.loads((release_dir / MANIFEST).read_text())
    for file in manifest["files"]:
        if file["role"] == "onnx":
            file["sha256"] = sha256_file(release_dir / file["path"])
            file["size_bytes"] = (release_dir / file["path"]).stat().st_size
        file["made_from"] = []
    (release_dir / MANIFEST).write_text(json.dumps(manifest))


def test_the_exported_model_passes_on_every_backend(release: Release) -> None:
    document = parity(release, ParityConfig(**QUICK))
    assert document["verdict"] == "PASS"
    assert document["data"]["n"] == 10_000
    assert [c["backend"] for c in document["cells"]] == backends_here()
    held_out = read_info(release.path / CHECKPOINT).metrics["validation_accuracy"]
    for cell in document["cells"]:
        assert cell["n"] == 10_000
        assert cell["agreement"] == 10_000 or (cell["backend"] == "openvino-bf16" and cell["agreement_rate"] > 0.995)
        assert cell["accuracy"] == pytest.approx(cell["eager_accuracy"], abs=1e-3)
        assert cell["eager_accuracy"] == pytest.approx(held_out, abs=0.06)  # 400 held-out images: 3.5 standard errors
        assert 0 < cell["max_abs_logit_diff"] <= cell["tolerance"]
        assert cell["batches"] == {"1": "ok", "2": "ok", "7": "ok", str(MAX_BATCH): "ok", str(MAX_BATCH + 1): "refused"}
    assert json.loads((release.path / PARITY).read_text()) == document
    assert all(s.ok for s in Release.open(release.path).verify())
    assert "Verdict **PASS** on 10,000 images of mnist" in (release.path / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("by", [0.5, 1e-3])
def test_one_changed_weight_fails(release_dir: Path, hwr, by: float) -> None:
    change_weight(release_dir / "model.fp32.onnx", by)
    result = hwr("parity", release_dir, "--json", "--corrupted", 100)
    assert result.exit_code == 1
    document = one_json(result.stdout)
    assert document["verdict"] == "FAIL"
    for cell in document["cells"]:
        assert cell["verdict"] == "FAIL"
        assert "not the file the manifest vouches for" in cell["reasons"][0]


def test_a_forged_manifest_does_not_save_it(release_dir: Path) -> None:
    change_weight(release_dir / "model.fp32.onnx")
    bless(release_dir)
    document = parity(Release.open(release_dir), ParityConfig(backends=("onnxruntime",), **QUICK))
    assert document["verdict"] == "FAIL"
    assert any("largest logit difference" in r for r in document["cells"][0]["reasons"])
    assert any(r.startswith("goldens: ") for r in document["cells"][0]["reasons"])


def transpose_input(model: onnx.ModelProto) -> None:
    image = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["turned" if name == image else name for name in node.input]
    model.graph.node.insert(0, onnx.helper.make_node("Cast", [image], ["as_float"], to=onnx.TensorProto.FLOAT))
    model.graph.node.insert(1, onnx.helper.make_node("Transpose", ["as_float"], ["turned"], perm=[0, 2, 1]))


def swap_labels(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.dims and tensor.dims[0] == 10:
            values = numpy_helper.to_array(tensor).copy()
            values[[1, 7]] = values[[7, 1]]
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def scale_pixels(model: onnx.ModelProto) -> None:
    """Preprocessing forgotten: the scale of 1 / 255 becomes 1."""
    for tensor in model.graph.initializer:
        if tensor.name.endswith("scale"):
            tensor.CopyFrom(numpy_helper.from_array(np.ones((), np.float32), tensor.name))
            return
    raise AssertionError("no scale in the graph")


@pytest.mark.parametrize("fault", [transpose_input, swap_labels, scale_pixels])
def test_faults_that_change_answers_fail(release_dir: Path, fault) -> None:
    path = release_dir / "model.fp32.onnx"
    model = onnx.load(path)
    fault(model)
    onnx.save(model, path)
    bless(release_dir)
    document = parity(Release.open(release_dir), ParityConfig(backends=("onnxruntime",), **QUICK))
    (cell,) = document["cells"]
    assert cell["verdict"] == "FAIL"
    assert cell["agreement"] < cell["n"]
    assert any("change their answer" in r for r in cell["reasons"])


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_truncated_model_fails_and_says_why(release_dir: Path, hwr, cut: int) -> None:
    path = release_dir / "model.fp32.onnx"
    path.write_bytes(path.read_bytes()[:cut])
    result = hwr("parity", release_dir, "--json", "--baseline", "goldens")
    assert result.exit_code == 1
    for cell in one_json(result.stdout)["cells"]:
        assert cell["verdict"] == "FAIL"
        assert any("cannot load the model" in r for r in cell["reasons"])


def test_a_missing_model_is_bad_input(release_dir: Path, hwr) -> None:
    (release_dir / "model.fp32.onnx").unlink()
    result = hwr("parity", release_dir, "--baseline", "goldens")
    assert result.exit_code == 2
    assert "cannot be read" in result.stderr


def test_changed_goldens_are_refused(release_dir: Path) -> None:
    (release_dir / "goldens.npz").write_bytes(b"x")
    with pytest.raises(ReleaseError, match="not the file the manifest vouches for"):
        parity(Release.open(release_dir), ParityConfig())


def test_the_cell_holds_all_three_layers(release: Release) -> None:
    document = parity(release, ParityConfig(backends=("onnxruntime",), margin_pt=0.2, corrupted=50))
    assert document["noise"].keys() == {"float64", "batch", "threads"}
    (cell,) = document["cells"]
    assert cell["flips"] == {
        "total": 0, "right_to_wrong": 0, "wrong_to_right": 0, "wrong_to_wrong": 0, "unlabelled": 0
    }  # fmt: skip
    assert (cell["accuracy_delta_pt"], cell["margin_pt"], cell["needed_n"], cell["stage"]) == (0, 0.2, 0, None)
    assert cell["delta_ci_pt"] == pytest.approx([-0.027, 0.027], abs=1e-3)
    assert cell["numbers"]["gated"]
    assert cell["numbers"]["logits"]["cosine_min"] > 0.999999
    assert cell["task"]["rates"].keys() == {"accuracy", "not read wrongly", "read correctly"}
    assert cell["task"]["ece"]["drift"] == pytest.approx(0, abs=1e-6)
    assert len(cell["corruptions"]["conditions"]) == 21
    assert cell["corruptions"]["verdict"] == "PASS"


def test_an_integer_file_is_judged_by_what_it_does(release: Release, tmp_path: Path, hwr) -> None:
    source = release.onnx("fp32")
    goldens = Goldens.from_bytes(release.read(release.entry(GOLDENS)), GOLDENS)
    integers = with_integers(release.read(source), goldens.images[:250], tmp_path)
    with release.change() as change:
        change.write("model.int8-cpu.onnx", integers, "onnx", [source.sha256], "int8-cpu")
    backend = ("--backend", "onnxruntime")
    wide = one_json(hwr("parity", release.path, "--json", *backend, "--margin", 2, "--corrupted", 100).stdout)
    cell = wide["cells"][1]
    assert (cell["precision"], cell["verdict"], cell["tolerance"]) == ("int8-cpu", "PASS", None)
    assert "decisions and the task decide" in cell["tolerance_reason"]
    assert cell["max_abs_logit_diff"] > 0.01
    assert sum(v for k, v in cell["flips"].items() if k != "total") == cell["flips"]["total"] > 0


def test_goldens_are_too_few_to_accept_an_integer_file_by(tmp_path: Path, hwr) -> None:
    # The committed network: how an integer file does on a network trained in this session is up to this machine.
    path = tmp_path / "digits"
    shutil.copytree(ROOT / "exported" / "digits", path, ignore=shutil.ignore_patterns("engines"))
    result = hwr("parity", path, "--backend", "onnxruntime", "--baseline", "goldens")
    assert result.exit_code == 3
    assert "more images like these would decide" in result.stdout
    cells = {c["precision"]: c for c in json.loads((path / PARITY).read_text())["cells"]}
    assert cells["int8-cpu"]["needed_n"] > 0
    assert cells["int8-cpu"]["corruptions"] is None
    assert {k: c["verdict"] for k, c in cells.items()} == {
        "fp32": "PASS", "fp16": "PASS", "int8": "UNDECIDED", "int8-cpu": "UNDECIDED"
    }  # fmt: skip
    assert "| int8-cpu | UNDECIDED |" in (path / "MODEL_CARD.md").read_text()


@pytest.mark.parametrize("words", [("--margin", "0"), ("--margin", "-1"), ("--corrupted", "0"), ("--margin", "x")])
def test_impossible_margins_are_wrong_usage(release_dir: Path, hwr, words: tuple[str, str]) -> None:
    assert hwr("parity", release_dir, *words).exit_code == 2


def test_goldens_alone_decide_without_dataset_or_torch(release_dir: Path, hwr_process, tmp_path: Path) -> None:
    result = hwr_process("parity", release_dir, "--baseline", "goldens", "--json", without=("torch", "onnx"))
    assert result.returncode == 0, result.stderr
    document = one_json(result.stdout)
    assert document["baseline"] == document["data"]["name"] == "goldens"
    assert document["data"]["n"] == 256


def test_the_eager_baseline_without_torch_is_an_error_not_a_fallback(release_dir: Path, hwr_process) -> None:
    result = hwr_process("parity", release_dir, without=("torch",))
    assert result.returncode == 2
    assert "the eager baseline needs torch" in result.stderr
    assert "--baseline goldens" in result.stderr


def test_backends_asked_for_must_be_there(release: Release) -> None:
    with pytest.raises(UsageError, match="no backend 'tensorflow'"):
        parity(release, ParityConfig(backends=("tensorflow",)))


def test_failed_evidence_is_kept_and_never_blesses_the_model(release_dir: Path, hwr) -> None:
    change_weight(release_dir / "model.fp32.onnx")
    hwr("parity", release_dir, "--baseline", "goldens")
    problems = {s.path: s.problem for s in Release.open(release_dir).verify()}
    assert "changed" in problems["model.fp32.onnx"]
    assert json.loads((release_dir / PARITY).read_text())["verdict"] == "FAIL"
    assert "**FAIL**" in (release_dir / "MODEL_CARD.md").read_text()
