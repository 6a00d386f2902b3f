"""What a recipe can switch on in the loop, each on a few hundred real digits."""

import io
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from hwr_export.checkpoint import load_checkpoint
from hwr_export.errors import CheckpointError, HwrError, UsageError
from hwr_export.models import build_model
from tests.conftest import ROOT, TINY, silent, tiny_recipe
from tests.train.test_fit import QUICK, metrics
from train.data import split_training_data
from train.fit import fit
from train.imagenet import load_imagenet
from train.run_directory import BAD_BATCH, LAST, SHEET


def run(recipe, out: Path, **named) -> Path:
    fit(recipe, out, None, resume=False, console=silent(), **named)
    return out


def weights(run_dir: Path) -> dict[str, torch.Tensor]:
    return torch.load(run_dir / LAST, weights_only=True)["model"]


def distance(one: Path, two: Path) -> float:
    """Distance between the weights of two runs, relative to their length."""
    a, b = ({k: v.double() for k, v in weights(r).items() if v.is_floating_point()} for r in (one, two))
    return float(sum((a[k] - b[k]).square().sum() for k in a) / sum(v.square().sum() for v in a.values())) ** 0.5


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_every_precision_learns(tmp_path: Path, precision: str) -> None:
    found = metrics(run(tiny_recipe(data={"limit": 800}, epochs=4, precision=precision), tmp_path / "r"))
    assert found[-1]["train_loss"] < 0.7 * found[0]["train_loss"]
    assert all(0 < r["gradient_norm"] < 100 and 0 <= r["gradient_clipped"] <= 1 for r in found)


@pytest.mark.parametrize(
    ("precision", "knows", "said"), [("bf16", False, True), ("bf16", True, False), ("fp32", False, False)]
)
def test_a_processor_that_emulates_bf16_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str, knows: bool, said: bool
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx2": True, "avx512_bf16": knows})
    console = Console(file=io.StringIO(), width=200)
    fit(tiny_recipe(**QUICK | {"epochs": 1}, precision=precision), tmp_path / "r", None, resume=False, console=console)
    assert ("emulates bf16: precision: fp32 in the recipe" in console.file.getvalue()) is said


@pytest.mark.parametrize(("knows", "precision"), [(True, "bf16"), (False, "fp32")])
def test_the_precision_is_one_that_the_processor_computes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, knows: bool, precision: str
) -> None:
    recipe = tiny_recipe(**QUICK | {"epochs": 2})
    assert recipe.precision == "auto"
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": knows})
    console = Console(file=io.StringIO(), width=200)
    path = fit(recipe, tmp_path / "r", None, resume=False, console=console)
    assert load_checkpoint(path).info.recipe["precision"] == precision
    assert "emulates" not in console.file.getvalue()
    # Another machine goes on as this one began.
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {"avx512_bf16": not knows})
    fit(recipe, tmp_path / "r", None, resume=True, console=console)
    assert "this run is complete" in console.file.getvalue()


def test_precisions_differ_only_by_rounding(tmp_path: Path) -> None:
    one = tiny_recipe(**QUICK | {"epochs": 1})
    losses = [
        metrics(run(one.model_copy(update={"precision": p}), tmp_path / p))[0]["train_loss"] for p in ("fp32", "bf16")
    ]
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=0.02)


def test_compiled_is_the_same_training(tmp_path: Path) -> None:
    # Compiled dropout draws other numbers. Without it and with one step an epoch nothing but rounding is compared.
    network = {"name": "edge", "config": {"channels": [8, 8, 12, 16], "dropout": 0.0}}
    changes = QUICK | {"precision": "fp32", "batch_size": 256, "model": network}
    eager = metrics(run(tiny_recipe(**changes), tmp_path / "eager"))
    compiled = metrics(run(tiny_recipe(**changes, compile=True), tmp_path / "compiled"))
    assert len(eager) == 2
    for mine, theirs in zip(eager, compiled, strict=True):
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], rel=1e-3)
    load_checkpoint(tmp_path / "compiled")


def test_deterministic_mode_repeats_and_is_left_again(tmp_path: Path) -> None:
    recipe = tiny_recipe(**QUICK, deterministic=True)
    first, second = (weights(run(recipe, tmp_path / name)) for name in "ab")
    assert all(torch.equal(first[k], second[k]) for k in first)
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_bad_batch_is_kept_with_the_weights_it_failed_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("train.fit.F.cross_entropy", lambda *a, **k: torch.tensor(float("nan"), requires_grad=True))
    with pytest.raises(HwrError, match=r"the batch is in .*bad-batch.pt"):
        run(tiny_recipe(**QUICK), tmp_path / "r")
    kept = torch.load(tmp_path / "r" / BAD_BATCH, weights_only=True)
    assert (kept["epoch"], kept["step"], kept["labels"].shape) == (1, 1, (32,))
    network = build_model("edge", 10, TINY["model"]["config"]).train()
    network.load_state_dict(kept["model"])
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert network(kept["inputs"]).shape == kept["logits"].shape


def test_tensorboard_can_read_what_was_logged(tmp_path: Path) -> None:
    run(tiny_recipe(**QUICK), tmp_path / "r", tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "r" / "tensorboard"))
    events.Reload()
    for name in ("train_loss", "validation_accuracy", "gradient_norm", "learning_rate"):
        found = [round(e.value, 4) for e in events.Scalars(name)]
        assert found == [pytest.approx(r[name], abs=1e-3) for r in metrics(tmp_path / "r")]


def test_the_sheet_shows_images_their_distortions_and_garbage(tmp_path: Path) -> None:
    recipe = tiny_recipe(**QUICK | {"epochs": 1}, garbage_weight=0.5)
    sheet = np.asarray(Image.open(run(recipe, tmp_path / "r") / SHEET))
    assert sheet.shape == ((12 * 30 + 2) * 2, (12 * 30 + 2) * 2)
    cells = [[sheet[4 + 60 * i : 60 * i + 60, 4 + 60 * j : 60 * j + 60] for j in range(12)] for i in range(12)]
    assert len({c.tobytes() for row in cells for c in row}) == 144
    assert all(c.max() > 60 for row in cells[:10] for c in row)


def test_two_processes_do_what_one_does(tmp_path: Path) -> None:
    recipe = tiny_recipe(
        **QUICK | {"model": {"name": "edge", "config": {"channels": [8, 8, 12, 16], "dropout": 0.0}}},
        precision="fp32",
        garbage_weight=0.5,
        optimizer="sgd",  # Adam's first steps are signs: they blow rounding up to the size of a step
        learning_rate=0.05,
    )
    threads = torch.get_num_threads()
    for n in (1, 2):
        torch.set_num_threads(n)
        run(recipe, tmp_path / f"{n}-threads")
    torch.set_num_threads(threads)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(by_alias=True)))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "train"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "fit", path, "-o", tmp_path / "two"], cwd=ROOT, env=environment, capture_output=True, text=True,
        check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for mine, theirs in zip(metrics(tmp_path / "1-threads"), metrics(tmp_path / "two"), strict=True):
        assert theirs["train_loss"] == pytest.approx(mine["train_loss"], rel=2e-3)
        assert theirs["validation_loss"] == pytest.approx(mine["validation_loss"], rel=1e-2)
    # The yardstick is what float32 sums cost anyway: one process with one thread against one with two.
    rounding = distance(tmp_path / "1-threads", tmp_path / "2-threads")
    assert 0 < rounding < 0.02
    assert distance(tmp_path / "1-threads", tmp_path / "two") < 3 * rounding
    load_checkpoint(tmp_path / "two")


def test_a_batch_that_processes_cannot_share_is_refused() -> None:
    from train.distributed import check_batch

    with pytest.raises(UsageError, match="batch_size 33 is the batch of all processes and must be a multiple of 2"):
        check_batch(33, 2)


def test_a_student_learns_from_its_teacher_alone(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = split_training_data

    def without_labels(*arguments):
        split = real(*arguments)
        split.data.labels.flags.writeable = True
        split.data.labels[split.train] = 0
        return split

    monkeypatch.setattr("train.fit.split_training_data", without_labels)
    recipe = tiny_recipe(
        epochs=5, data={"limit": 1000, "validation_fraction": 0.3}, distil={"teachers": [str(run_dir)], "weight": 1.0}
    )
    found = metrics(run(recipe, tmp_path / "r"))
    assert found[-1]["validation_accuracy"] > 0.6
    info = load_checkpoint(tmp_path / "r").info
    assert info.parents == {"teacher 1": load_checkpoint(run_dir).info.weights.sha256}


def test_a_teacher_of_something_else_is_refused(run_dir: Path, tmp_path: Path) -> None:
    recipe = tiny_recipe(**QUICK, distil={"teachers": [str(tmp_path / "nobody")]})
    with pytest.raises(CheckpointError, match="there is no checkpoint"):
        run(recipe, tmp_path / "r")
    other = tiny_recipe(data={"name": "chars62", "limit": 20000}, distil={"teachers": [str(run_dir)]})
    with pytest.raises(UsageError, match=r"distil.teachers: .* answers '0123456789' on 28 x 28, the student"):
        run(other, tmp_path / "r")


def test_a_network_for_other_sizes_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="torchvision does not take images of 28 x 28"):
        run(tiny_recipe(**QUICK, model={"name": "torchvision", "config": {"model": "vit_b_16"}}), tmp_path / "r")
    assert not (tmp_path / "r").exists()


# -- ImageNet --------------------------------------------------------------------------------------------------------


def test_imagenet_weights_come_from_a_file(tmp_path: Path) -> None:
    import torchvision

    published = torchvision.models.resnet18(num_classes=1000)
    torch.save(published.state_dict(), tmp_path / "resnet18.pth")
    ours = build_model("torchvision", 10, {"model": "resnet18"})
    load_imagenet(ours, "resnet18", str(tmp_path / "resnet18.pth"))
    assert torch.equal(ours.layer4[1].conv2.weight, published.layer4[1].conv2.weight)
    torch.testing.assert_close(ours.conv1.weight, published.conv1.weight.sum(1, keepdim=True))
    assert ours.fc.out_features == 10
    with pytest.raises(CheckpointError, match="does not fit resnet34"):
        load_imagenet(build_model("resnet34", 10), "resnet34", str(tmp_path / "resnet18.pth"))


def test_imagenet_weights_that_cannot_be_had_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_model("resnet18", 10)
    with pytest.raises(CheckpointError, match="no weights 'BEST' for resnet18; valid: DEFAULT, IMAGENET1K_V1"):
        load_imagenet(network, "resnet18", "BEST")
    with pytest.raises(CheckpointError, match="torchvision has no ImageNet weights for edge"):
        load_imagenet(network, "edge", "DEFAULT")
    monkeypatch.setattr("torch.hub.load_state_dict_from_url", _no_network)
    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", _no_network)
    with pytest.raises(CheckpointError, match=r"cannot be had from https://.*; fetch that file elsewhere"):
        load_imagenet(network, "resnet18", "DEFAULT")


def _no_network(*a, **k):
    raise OSError("Name or service not known")
