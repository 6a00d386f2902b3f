"""ImageNet weights -> where a torchvision classifier starts from; the registry is torchvision's own."""

from pathlib import Path

import torch
import torchvision
from torch import nn

from hwr_export.checkpoint import load_state
from hwr_export.errors import CheckpointError


def load_imagenet(network: nn.Module, name: str, weights: str) -> None:
    """Copy all tensors that fit into a network, the first convolution summed to grey; the others start anew.

    Args:
        name: torchvision's name of the classifier.
        weights: `DEFAULT`, a name of torchvision's weights API, or the file of a state dict.

    Raises:
        CheckpointError: no such weights, they cannot be had, or they are of another network.
    """
    is_file = Path(weights).suffix in (".pth", ".pt", ".safetensors")
    state = load_state(Path(weights)) if is_file else _api_state(name, weights)
    own = network.state_dict()
    taken = {}
    for key, value in state.items():
        if key not in own:
            raise CheckpointError(f"{weights} does not fit {name}: {key} is not in the network")
        grey = value.ndim == 4 and value.shape[1] == 3 and own[key].shape[1] == 1
        fitting = value.sum(1, keepdim=True) if grey else value
        if fitting.shape == own[key].shape:
            taken[key] = fitting
    if len(taken) < len(own) * 0.9:
        raise CheckpointError(f"{weights} does not fit {name}: only {len(taken)} of its {len(own)} tensors do")
    network.load_state_dict(own | taken)


def _api_state(name: str, weights: str) -> dict[str, torch.Tensor]:
    try:
        known = torchvision.models.get_model_weights(name)
    except ValueError as err:
        raise CheckpointError(f"torchvision has no ImageNet weights for {name}") from err
    names = [w.name for w in known]
    if weights != "DEFAULT" and weights not in names:
        raise CheckpointError(f"torchvision has no weights {weights!r} for {name}; valid: DEFAULT, {', '.join(names)}")
    chosen = known[weights]
    try:
        return dict(chosen.get_state_dict(check_hash=True))
    except (OSError, RuntimeError) as err:
        raise CheckpointError(
            f"the ImageNet weights of {name} cannot be had from {chosen.url} ({err}); fetch that file elsewhere and "
            "name it in the recipe: model.weights: PATH.pth"
        ) from err
