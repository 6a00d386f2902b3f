import torch

from hwr_export.datasets import load_mnist
from train.augment import augment
from train.fit import to_unit
from train.recipe import AugmentRecipe

OFF = AugmentRecipe(rotate_deg=0, scale=0, shear=0, translate_px=0, elastic_px=0)


def digits(n: int = 64) -> torch.Tensor:
    return to_unit(torch.tensor(load_mnist("train").images[:n]))


def test_switched_off_it_changes_nothing() -> None:
    torch.testing.assert_close(augment(digits(), OFF), digits(), atol=1e-5, rtol=0)


def test_each_image_is_distorted_its_own_way_and_stays_a_digit() -> None:
    torch.manual_seed(0)
    same = digits(1).expand(64, -1, -1, -1)
    found = augment(same, AugmentRecipe())
    assert found.shape == same.shape
    assert found.min() >= 0
    assert found.max() <= 1
    assert len({t.numpy().tobytes() for t in found}) == 64
    ink = found.sum((1, 2, 3)) / same.sum((1, 2, 3))
    assert 0.6 < float(ink.min()) <= float(ink.max()) < 1.6


def test_a_seed_repeats_it() -> None:
    torch.manual_seed(1)
    first = augment(digits(), AugmentRecipe())
    torch.manual_seed(1)
    torch.testing.assert_close(augment(digits(), AugmentRecipe()), first)


def test_translation_moves_by_at_most_what_is_said() -> None:
    recipe = OFF.model_copy(update={"translate_px": 3.0})
    dot = torch.zeros(200, 1, 28, 28)
    dot[:, :, 14, 14] = 1
    found = augment(dot, recipe)
    rows = (found.sum((1, 3)) * torch.arange(28)).sum(1) / found.sum((1, 2, 3))
    assert 2 < float((rows - 14).abs().max()) <= 3.01
