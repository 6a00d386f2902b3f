import pytest
import torch

from hwr_export.errors import CheckpointError
from hwr_export.models import ARCHITECTURES, build_model, count_parameters


@pytest.mark.parametrize("name", sorted(set(ARCHITECTURES) - {"torchvision"}))
@pytest.mark.parametrize("classes", [2, 10, 62])
def test_shapes(name: str, classes: int) -> None:
    model = build_model(name, classes)
    assert not model.training
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, classes)


@pytest.mark.parametrize(("name", "budget"), [("edge-s", 25_000), ("edge-m", 100_000), ("edge", 100_000)])
def test_edge_stays_within_its_budget(name: str, budget: int) -> None:
    assert budget * 0.7 < count_parameters(build_model(name, 10)) <= budget


@pytest.mark.parametrize("model", ["mobilenet_v3_small", "efficientnet_b0", "resnet18"])
def test_any_torchvision_classifier_takes_grey_images(model: str) -> None:
    network = build_model("torchvision", 62, {"model": model})
    assert network(torch.zeros(2, 1, 32, 32)).shape == (2, 62)


def test_resnet_keeps_the_resolution_of_small_images() -> None:
    network = build_model("resnet18", 10)
    assert network.layer1(network.maxpool(network.conv1(torch.zeros(1, 1, 28, 28)))).shape[2:] == (28, 28)


def test_the_article_network_is_the_classic_one() -> None:
    # conv 32 + bn, conv 64 + bn, fc 128, fc 10
    expected = 32 * 9 + 64 + 64 * 32 * 9 + 128 + 64 * 49 * 128 + 128 + 128 * 10 + 10
    assert count_parameters(build_model("article-cnn", 10)) == expected


def test_unknown_names_and_settings_list_what_is_valid() -> None:
    with pytest.raises(CheckpointError, match="known: article-cnn, edge, edge-m, edge-s, resnet18"):
        build_model("vgg", 10)
    with pytest.raises(CheckpointError, match="four numbers"):
        build_model("edge", 10, {"channels": [1]})
    with pytest.raises(CheckpointError, match="torchvision has no classifier 'resnet9000'; known: alexnet"):
        build_model("torchvision", 10, {"model": "resnet9000"})
