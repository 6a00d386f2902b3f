import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hwr_export.errors import ExportError
from hwr_export.models import build_model
from hwr_export.program import Recognizer, program_from_network, refuse_train_mode
from hwr_export.spec import ModelSpec, Preprocessing

SPEC = ModelSpec(labels="0123456789", preprocessing=Preprocessing(mean=0.13, std=0.31), max_batch=16, parameters=1)


class Head(nn.Module):
    """A linear network whose `forward` a test can bend."""

    def __init__(self, bend=lambda x: x) -> None:
        super().__init__()
        self.linear = nn.Linear(784, 10)
        self.bend = bend

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.bend(x.flatten(1)))


def test_preprocessing_is_what_training_does() -> None:
    image = np.random.default_rng(0).integers(0, 256, (3, 28, 28)).astype(np.uint8)
    found = Recognizer(nn.Identity().eval(), SPEC).preprocess(torch.tensor(image)).numpy()
    expected = (image.astype(np.float64) / 255 - 0.13) / 0.31
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-6)


def test_grey_is_repeated_over_the_channels() -> None:
    spec = SPEC.model_copy(update={"preprocessing": Preprocessing(channels=3)})
    found = Recognizer(nn.Identity().eval(), spec).preprocess(torch.zeros((2, 28, 28), dtype=torch.uint8))
    assert found.shape == (2, 3, 28, 28)


def test_the_batch_is_dynamic_over_its_whole_range() -> None:
    program = program_from_network(build_model("edge", 10), SPEC)
    (bounds,) = program.range_constraints.values()
    assert (bounds.lower, bounds.upper) == (1, 16)
    for n in (1, 2, 7, 16):
        logits, probabilities = program.module()(torch.zeros((n, 28, 28), dtype=torch.uint8))
        assert logits.shape == probabilities.shape == (n, 10)


def test_temperature_softens_probabilities_and_leaves_logits() -> None:
    network, image = build_model("edge", 10), torch.randint(0, 256, (4, 28, 28), dtype=torch.uint8)
    logits, sharp = Recognizer(network, SPEC)(image)
    same, soft = Recognizer(network, SPEC.model_copy(update={"temperature": 3.0}))(image)
    torch.testing.assert_close(logits, same)
    torch.testing.assert_close(soft, torch.softmax(logits / 3, 1))
    assert (soft.max(1).values < sharp.max(1).values).all()


def test_train_mode_is_refused_and_named() -> None:
    network = build_model("article-cnn", 10)
    network.classifier[3].train()
    with pytest.raises(ExportError, match=r"1 module\(s\) are in train mode \(classifier\.3\)"):
        refuse_train_mode(network)


@pytest.mark.parametrize(
    ("bend", "message"),
    [
        (lambda x: F.dropout(x, 0.5, training=True), "dropout at .* is still active"),
        (lambda x: F.batch_norm(x, None, None, training=True), "batch_norm at .* batch statistics"),
        (lambda x: x + torch.rand_like(x), "draws random numbers"),
        (lambda x: x if x.sum() > 0 else -x, "cannot trace Head"),
        (lambda x: x[:, :5], "does not take float32"),
    ],
)
def test_networks_that_would_export_wrongly_are_refused(bend, message: str) -> None:
    with pytest.raises(ExportError, match=message):
        program_from_network(Head(bend).eval(), SPEC)


def test_a_wrong_number_of_classes_is_refused() -> None:
    with pytest.raises(ExportError, match=r"returned \(2, 4\).*one logit for each of the labels '0123456789'"):
        program_from_network(build_model("edge", 4), SPEC)


def test_a_batch_baked_in_is_refused() -> None:
    class Fixed(Head):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.linear(x.reshape(2, 784))

    with pytest.raises(ExportError, match="batch of 1 to 16"):
        program_from_network(Fixed().eval(), SPEC)
