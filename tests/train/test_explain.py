"""Explanations add up, look at the ink, and work for every architecture that can be trained."""

from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from torch import nn

from hwr_export.checkpoint import Checkpoint, CheckpointInfo, load_checkpoint, save_checkpoint, weights_file
from hwr_export.datasets import Dataset
from hwr_export.errors import CheckpointError
from hwr_export.glyph import normalize
from hwr_export.labels import ALPHANUMERIC, DIGITS
from hwr_export.models import build_model
from hwr_export.spec import Preprocessing
from tests.conftest import one_json
from train.__main__ import main
from train.explain import COMPLETENESS, Explainer, last_convolution


def run(*arguments: object):
    return CliRunner().invoke(main, ["explain", *map(str, arguments)])


def crops(data: Dataset, count: int) -> list[np.ndarray]:
    return [normalize(image, 28, 28) for image in data.images[:count]]


def made(module: nn.Module, labels: str = DIGITS, side: int = 28, channels: int = 1) -> Checkpoint:
    """A checkpoint around any network, untrained."""
    info = CheckpointInfo(
        name="made",
        kind="architecture",
        architecture="edge",
        labels=labels,
        preprocessing=Preprocessing(height=side, width=side, channels=channels, mean=0.13, std=0.31),
        parameters=1,
        weights=weights_file(b""),
    )
    return Checkpoint(info, b"", module.eval())


def test_attributions_sum_to_the_logit_difference(run_dir: Path, mnist_test: Dataset) -> None:
    explainer = Explainer(load_checkpoint(run_dir))
    for crop in crops(mnist_test, 20):
        found = explainer.explain(crop)
        assert abs(found.gradients.sum() - found.difference) <= COMPLETENESS * np.abs(found.gradients).sum()
        assert found.delta == pytest.approx(found.gradients.sum() - found.difference)
        assert found.target == found.probabilities.argmax()
        assert found.probabilities.sum() == pytest.approx(1)


def test_blank_paper_explains_itself_by_nothing(run_dir: Path) -> None:
    found = Explainer(load_checkpoint(run_dir)).explain(np.zeros((28, 28), np.uint8))
    assert found.difference == 0
    assert not found.gradients.any()


def test_only_changed_pixels_have_an_attribution(run_dir: Path, mnist_test: Dataset) -> None:
    """The baseline is the paper, so paper explains nothing."""
    explainer = Explainer(load_checkpoint(run_dir))
    for crop in crops(mnist_test, 5):
        assert not explainer.explain(crop).gradients[crop == 0].any()


def test_grad_cam_looks_at_the_ink_more_than_chance(run_dir: Path, mnist_test: Dataset) -> None:
    explainer = Explainer(load_checkpoint(run_dir))
    above = []
    for crop in crops(mnist_test, 30):
        cam = explainer.explain(crop).grad_cam
        assert cam.shape == crop.shape
        assert cam.min() >= 0
        if cam.any():
            above.append(cam[crop > 64].sum() / cam.sum() / (crop > 64).mean())
    assert len(above) > 25
    assert np.mean(above) > 1.3
    assert np.mean(np.array(above) > 1) > 0.8


def test_another_class_is_explained_otherwise(run_dir: Path, mnist_test: Dataset) -> None:
    explainer = Explainer(load_checkpoint(run_dir))
    (crop,) = crops(mnist_test, 1)
    own, other = explainer.explain(crop), explainer.explain(crop, 3)
    assert (own.target, other.target) == (7, 3)
    assert own.difference > other.difference
    np.testing.assert_array_equal(own.probabilities, other.probabilities)


@pytest.mark.parametrize(
    ("name", "config", "labels", "side", "layer"),
    [
        ("edge", {}, DIGITS, 28, "blocks"),
        ("edge-s", {}, ALPHANUMERIC, 28, "blocks"),
        ("article-cnn", {}, ALPHANUMERIC, 28, "features.4"),
        ("resnet18", {}, DIGITS, 28, "layer4"),
        ("torchvision", {"model": "squeezenet1_1"}, ALPHANUMERIC, 28, "classifier"),
        ("torchvision", {"model": "mobilenet_v3_small"}, DIGITS, 32, "features"),
        ("torchvision", {"model": "densenet121"}, DIGITS, 32, "features"),
    ],
)
def test_every_architecture_is_explained(name: str, config: dict, labels: str, side: int, layer: str) -> None:
    torch.manual_seed(0)
    explainer = Explainer(made(build_model(name, len(labels), config), labels, side))
    assert explainer.layer_name.startswith(layer)
    ramp = np.zeros((side, side), np.uint8)
    ramp[4:-4, side // 2 - 2 : side // 2 + 2] = 200
    found = explainer.explain(ramp)
    assert found.probabilities.shape == (len(labels),)
    assert found.grad_cam.shape == found.gradients.shape == (side, side)
    assert np.isfinite(found.grad_cam).all()
    assert abs(found.delta) <= COMPLETENESS * np.abs(found.gradients).sum()


def test_grey_repeated_over_channels_adds_up_over_them() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(4 * 26 * 26, 10))
    crop = np.zeros((28, 28), np.uint8)
    crop[5:20, 12:15] = 255
    found = Explainer(made(network, channels=3)).explain(crop)
    assert abs(found.gradients.sum() - found.difference) <= COMPLETENESS * np.abs(found.gradients).sum()


def test_a_residual_sum_is_taken_before_one_of_its_branches() -> None:
    network = build_model("edge", 10)
    name, module = last_convolution(network, torch.zeros(1, 1, 28, 28))
    assert name == "blocks"
    assert module is network.blocks


def test_a_network_without_convolutions_is_refused() -> None:
    with pytest.raises(CheckpointError, match="Sequential has no convolution, which Grad-CAM needs"):
        Explainer(made(nn.Sequential(nn.Flatten(), nn.Linear(784, 10))))


def test_the_command_draws_and_reports(run_dir: Path, digit_png: Path, tmp_path: Path) -> None:
    odd = tmp_path / "a $name$ of_many characters, longer than its column.png"
    odd.write_bytes(digit_png.read_bytes())
    document = one_json(run(run_dir, digit_png, odd, "-o", tmp_path / "why.png", "--json").stdout)
    assert document["schema"] == 1
    first, second = document["results"]
    assert (first["label"], first["target"]) == ("7", "7")
    assert first["confidence"] == first["target_probability"] > 0.5
    assert abs(first["convergence_delta"]) < 0.05 * first["logit_difference"]
    assert {k: v for k, v in first.items() if k != "image"} == {k: v for k, v in second.items() if k != "image"}
    with Image.open(document["picture"]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 400
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    other = run(run_dir, digit_png, "-o", tmp_path / "why.png", "--target", "1")
    assert other.exit_code == 0, other.output
    assert other.stdout.splitlines()[-1] == str(tmp_path / "why.png")


def test_the_picture_and_the_reader_agree(run_dir: Path, release_dir: Path, digit_png: Path, hwr, tmp_path) -> None:
    ours = one_json(run(run_dir, digit_png, "-o", tmp_path / "why.png", "--json").stdout)["results"][0]
    read = one_json(hwr("read", digit_png, "--release", release_dir, "--json").stdout)["results"][0]
    assert ours["confidence"] == pytest.approx(read["confidence"], abs=1e-5)
    assert (ours["label"], ours["rejected"]) == (read["label"], read["rejected"])


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        ("blank.png", ("-o", "x.png"), "no ink in blank.png"),
        ("nowhere.png", ("-o", "x.png"), "there is no image nowhere.png"),
        ("seven.png", ("-o", "x.jpg"), "the picture is a PNG file, got x.jpg"),
        ("seven.png", ("-o", "x.png", "--target", "A"), "'A' is not a label of tiny, which knows 0123456789"),
        ("seven.png", ("-o", "x.png", "--target", "12"), "'12' is not a label"),
        ("seven.png", ("-o", "x.png", "--target", ""), "'' is not a label"),
    ],
)
def test_bad_input_is_one_sentence(
    run_dir: Path, digit_png: Path, tmp_path: Path, monkeypatch, image: str, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(np.full((40, 40), 255, np.uint8)).save("blank.png")
    result = run(run_dir, image, *options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["blank.png", "seven.png"]


def test_too_many_images_are_refused(run_dir: Path, digit_png: Path, tmp_path: Path) -> None:
    result = run(run_dir, *[digit_png] * 65, "-o", tmp_path / "x.png")
    assert result.exit_code == 2
    assert "1 to 64 images, got 65" in result.stderr


def test_a_saved_program_is_refused(tmp_path: Path, digit_png: Path) -> None:
    program = torch.export.export(build_model("edge", 10), (torch.zeros(2, 1, 28, 28),))
    torch.export.save(program, tmp_path / "model.pt2")
    data = (tmp_path / "model.pt2").read_bytes()
    info = made(nn.Identity()).info.model_copy(update={"kind": "program", "weights": weights_file(data, ".pt2")})
    save_checkpoint(tmp_path, info, data)
    result = run(tmp_path, digit_png, "-o", tmp_path / "x.png")
    assert result.exit_code == 2
    assert "made is a saved program: its graph has no convolution modules to observe" in result.stderr
