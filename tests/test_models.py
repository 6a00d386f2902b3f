import pytest
import torch

from hwr_export.errors import CheckpointError
from hwr_export.models import ARCHITECTURES, build_model, count_parameters


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("classes", [2, 10, 62])
def test_shapes(name: str, classes: int) -> None:
    model = build_model(name, classes)
    assert not model.training
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, classes)


def test_edge_stays_within_its_budget() -> None:
    assert count_parameters(build_model("edge", 10)) <= 100_000


def test_the_article_network_is_the_classic_one() -> None:
    # conv 32 + bn, conv 64 + bn, fc 128, fc 10
    expected = 32 * 9 + 64 + 64 * 32 * 9 + 128 + 64 * 49 * 128 + 128 + 128 * 10 + 10
    assert count_parameters(build_model("article-cnn", 10)) == expected


def test_unknown_names_and_settings_list_what_is_valid() -> None:
    with pytest.raises(CheckpointError, match="known: article-cnn, edge"):
        build_model("resnet", 10)
    with pytest.raises(CheckpointError, match="four numbers"):
        build_model("edge", 10, {"channels": [1]})
