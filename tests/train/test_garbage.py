import math
from pathlib import Path

import numpy as np
import pytest
import torch

from hwr_export.checkpoint import load_checkpoint
from hwr_export.datasets import load_mnist
from hwr_export.errors import UsageError
from hwr_export.runners.eager import EagerRunner
from hwr_export.spec import PROBABILITIES
from tests.conftest import silent, tiny_recipe
from train.counted_garbage import synthetic_garbage
from train.fit import fit, to_unit
from train.garbage import garbage_like, garbage_loss


@pytest.mark.parametrize("n", [1, 3, 4, 33])
def test_garbage_has_the_shape_and_range_of_the_images(n: int) -> None:
    torch.manual_seed(0)
    images = to_unit(torch.tensor(load_mnist("train").images[:n]))
    found = garbage_like(images, "0123456789")
    assert found.shape == images.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert not any(torch.equal(a, b) for a in found for b in images)


def test_among_letters_marks_of_several_pieces_are_no_garbage() -> None:
    """Two pieces make a T or an X; a dot or a dash is convex: between two pixels of ink there is ink."""

    def convex(labels: str) -> float:
        torch.manual_seed(0)
        marks = garbage_like(torch.zeros(500, 1, 28, 28), labels)[400:, 0].numpy()
        rng = np.random.default_rng(0)
        inked = []
        for mark in marks:
            pixels = np.argwhere(mark > 0.3)
            one, two = (rng.permutation(pixels) for _ in range(2))
            inked += mark[tuple(((one + two) // 2).T)].tolist()
        return float((np.asarray(inked) > 0.1).mean())

    assert convex("0123456789") < 0.99
    assert convex("01Aa") > 0.998


def test_the_loss_begins_where_a_class_is_more_likely_than_not() -> None:
    assert float(garbage_loss(torch.zeros(4, 10))) == 0
    assert float(garbage_loss(torch.log(torch.tensor([[0.49, 0.41, 0.1]])))) == 0
    assert float(garbage_loss(torch.log(torch.tensor([[0.8, 0.1, 0.1]])))) == pytest.approx(math.log(0.8 / 0.5))
    sure = torch.tensor([[4.0, 0.0, 0.0]], requires_grad=True)
    garbage_loss(sure).backward()
    assert sure.grad[0, 0] > 0 > sure.grad[0, 1]


def confidence(run: Path) -> tuple[float, float]:
    checkpoint = load_checkpoint(run)
    digits = load_mnist("train").images[10_000:10_500]
    garbage = np.concatenate(list(synthetic_garbage(28, 28, "0123456789", each=100).values()))
    with EagerRunner(checkpoint, checkpoint.info.spec()) as runner:
        return tuple(
            float(np.median(runner.infer_all(images)[PROBABILITIES].max(axis=1))) for images in (digits, garbage)
        )


def test_training_with_garbage_makes_the_model_unsure_of_other_garbage(run_dir: Path, tmp_path: Path) -> None:
    fit(tiny_recipe(garbage_weight=0.5), tmp_path / "r", None, resume=False, console=silent())
    digits_without, garbage_without = confidence(run_dir)
    digits_with, garbage_with = confidence(tmp_path / "r")
    assert garbage_with < garbage_without - 0.1
    assert digits_with > digits_without - 0.1


def test_real_images_of_other_characters_join_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(
        "train.fit.garbage_like", lambda images, labels: seen.append(len(images)) or garbage_like(images, labels)
    )
    few = {"epochs": 1, "data": {"limit": 400, "validation_fraction": 0.3}, "garbage_weight": 0.5}
    letters = {"name": "chars62", "classes": "AEFHK", "limit": 2000}
    fit(tiny_recipe(**few, garbage_data=letters), tmp_path / "r", None, resume=False, console=silent())
    assert set(seen) == {4}  # of 8 a batch of 32; the other half are letters


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"garbage_weight": 0.5, "garbage_data": {"name": "chars62", "classes": "A1B2"}},
            "garbage_data holds 1, 2, which",
        ),
        ({"garbage_data": {"name": "chars62", "classes": "AB"}}, "garbage_data without garbage_weight"),
    ],
)
def test_other_characters_that_cannot_be_used_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        fit(tiny_recipe(**changes), tmp_path / "r", None, resume=False, console=silent())
    assert not (tmp_path / "r").exists()
