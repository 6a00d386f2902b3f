"""Which stage is at fault, and what can still be said where packages are missing. More in test_mutations.py."""

import json

import numpy as np
import onnx
import pytest

from hwr_export.goldens import Goldens
from hwr_export.release import GOLDENS, Release
from hwr_export.spec import Preprocessing
from hwr_export.stages import Suspect, _class_order, _name_of_pixels, locate
from tests.conftest import change_weight, one_json
from tests.faults import change_named, rounded_to_halves, transpose
from tests.test_parity import bless


def goldens_of(release: Release) -> Goldens:
    return Goldens.from_bytes(release.read(release.entry(GOLDENS)), GOLDENS)


def edited(model: bytes, edit) -> bytes:
    loaded = onnx.load_from_string(model)
    edit(loaded)
    return loaded.SerializeToString()


@pytest.fixture
def without_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "hwr_export.taps", None)


spoil = change_named("network.blocks.1.conv1.weight", lambda v: -v)


def test_a_wrong_float_file_taints_what_was_made_from_it(release: Release) -> None:
    model = release.read(release.onnx("fp32"))
    broken = edited(model, spoil)
    halves = rounded_to_halves(broken)
    found = locate(Suspect(halves, "fp16", "onnxruntime", broken), release.spec, goldens_of(release))
    assert found.stage == "export"
    assert "the float file that it was made from does not answer as expected either" in found.why
    found = locate(Suspect(halves, "fp16", "onnxruntime", model), release.spec, goldens_of(release))
    assert found.stage == "quantization"
    found = locate(Suspect(halves, "fp16", "onnxruntime", None), release.spec, goldens_of(release))
    assert found.stage is None
    assert "no fp32 file" in found.why


def test_without_onnx_what_needs_no_graph_is_still_told(release: Release, without_onnx) -> None:
    model = release.read(release.onnx("fp32"))
    goldens = goldens_of(release)
    found = locate(Suspect(edited(model, spoil), "fp32", "onnxruntime"), release.spec, goldens)
    assert found.stage is None
    assert "needs the package onnx: pip install 'hwr-export[export]'" in found.why
    found = locate(Suspect(edited(model, transpose), "fp32", "onnxruntime"), release.spec, goldens)
    assert (found.stage, found.fault) == ("preprocessing", "transposed input")
    found = locate(Suspect(edited(model, spoil), "int8", "onnxruntime", model), release.spec, goldens)
    assert found.stage == "quantization"


def test_a_device_without_torch_and_onnx_names_what_it_can(release_dir, hwr_process) -> None:
    path = release_dir / "model.fp32.onnx"
    path.write_bytes(edited(path.read_bytes(), transpose))
    bless(release_dir)
    result = hwr_process(
        "parity", release_dir, "--baseline", "goldens", "--bisect", "--json", without=("torch", "onnx")
    )
    assert result.returncode == 1, result.stderr
    for cell in one_json(result.stdout)["cells"]:
        assert (cell["stage"], cell["fault"]) == ("preprocessing", "transposed input")
        assert "needs the package onnx" in cell["bisect"]["problem"]


def test_a_network_with_preprocessing_of_its_own_has_no_such_border(release: Release) -> None:
    model = edited(release.read(release.onnx("fp32")), change_named("scale", lambda v: 2 * v))
    found = locate(Suspect(model, "fp32", "onnxruntime", sees_pixels=True), release.spec, goldens_of(release))
    assert found.stage == "export"


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (lambda p: p / 255, "missing normalisation"),
        (lambda p: (255 - p) / 255, "inverted polarity"),
        (lambda p: p.transpose(0, 2, 1) / 255, "transposed input"),
        (np.sqrt, None),
    ],
)
def test_pixels_are_recognised_by_what_was_done_to_them(release: Release, mnist_test, make, fault) -> None:
    images = mnist_test.images[:50]
    found = _name_of_pixels(make(images.astype(float)), images, release.spec, 1e-6)
    assert (found.stage, found.fault) == ("preprocessing", fault)
    p: Preprocessing = release.spec.preprocessing
    assert f"{1 / (255 * p.std):.4g} x pixel" in found.why


def test_another_order_of_classes_is_recognised() -> None:
    logits = np.random.default_rng(0).normal(0, 5, (200, 4))
    assert _class_order(logits, logits) is None
    order = _class_order(logits[:, [0, 2, 1, 3]], logits)
    np.testing.assert_array_equal(logits[:, [0, 2, 1, 3]][:, order], logits)
    assert _class_order(logits[:, [0, 0, 1, 3]], logits) is None


def test_people_read_the_stage_and_the_layer(release_dir, hwr) -> None:
    change_weight(release_dir / "model.fp32.onnx")
    bless(release_dir)
    result = hwr("parity", release_dir, "--backend", "onnxruntime", "--corrupted", 100, "--bisect")
    assert result.exit_code == 1
    assert "onnxruntime fp32: stage at fault: export: the graph's preprocessing is the eager one" in result.stdout
    assert "part first at network." in result.stdout
    document = json.loads((release_dir / "parity.json").read_text())
    assert document["cells"][0]["bisect"]["first"]["operator"] == "Conv"
