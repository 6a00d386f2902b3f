"""Checkpoint + new label set -> a network that starts from it, and which of its parts learn, how fast, from when.

A network is an ordered list of parts, bottom to top; the last is the head. Freezing, slower learning below and
unfreezing from the top down are all said in terms of parts (Howard and Ruder 2018).
"""

from collections.abc import Iterator
from pathlib import Path

from torch import nn

from hwr_export.checkpoint import CHECKPOINT_JSON, Checkpoint, load_checkpoint, read_info
from hwr_export.errors import UsageError
from train.recipe import FineTuneRecipe, ModelRecipe, Recipe, load_yaml, validated

NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm)
SEQUENCES = ("blocks", "features", "classifier")


def load_fine_tune_recipe(path: Path, checkpoint: Path) -> Recipe:
    """Read a recipe that names no model and start it from a checkpoint, whose network it keeps.

    Raises:
        UsageError: the recipe is not valid, names a model, or the checkpoint is not one of our architectures.
        CheckpointError: the checkpoint cannot be read.
    """
    info = read_info(checkpoint / CHECKPOINT_JSON if checkpoint.is_dir() else checkpoint)
    if info.kind != "architecture":
        raise UsageError(f"{checkpoint} is a {info.kind}, not one of our architectures; it cannot be fine-tuned here")
    document = load_yaml(path)
    if "model" in document:
        raise UsageError(f"{path} names a model, but fine-tuning keeps that of {checkpoint}; remove the key")
    fine_tune = document.get("fine_tune") or {}
    if isinstance(fine_tune, dict) and "checkpoint" not in fine_tune:
        fine_tune = {**fine_tune, "checkpoint": str(checkpoint)}
    return validated(
        document | {"model": {"name": info.architecture, "config": info.config}, "fine_tune": fine_tune}, path
    )


def parts(network: nn.Module) -> dict[str, list[nn.Module]]:
    """Return the modules of each part, bottom to top; a norm belongs to the convolution before it."""
    found: dict[str, list[nn.Module]] = {}
    for name, module in _layers(network, ""):
        if isinstance(module, NORMS) and found:
            found[list(found)[-1]].append(module)
        elif any(True for _ in module.parameters()):
            found[name] = [module]
    return found


def head_of(network: nn.Module) -> str:
    """Return the name of the part that ends in the classes."""
    return list(parts(network))[-1]


def start_from(settings: FineTuneRecipe, model: ModelRecipe, network: nn.Module, labels: str) -> Checkpoint:
    """Copy the checkpoint's tensors into `network`; a head for other labels starts anew.

    Raises:
        CheckpointError: the checkpoint cannot be loaded.
        UsageError: it is another network, or `train_from` names no part of it.
    """
    source = load_checkpoint(Path(settings.checkpoint))
    if (source.info.architecture, source.info.config) != (model.name, model.config):
        raise UsageError(
            f"{settings.checkpoint} is {source.info.architecture} {source.info.config}, the recipe asks for "
            f"{model.name} {model.config}; fine-tuning keeps the network"
        )
    lowest(network, settings)
    state = source.module.state_dict()
    if source.info.labels != labels:
        head = head_of(network)
        state = network.state_dict() | {k: v for k, v in state.items() if not k.startswith(f"{head}.")}
    network.load_state_dict(state)
    return source


def lowest(network: nn.Module, settings: FineTuneRecipe) -> int:
    """Return the index of the lowest part that learns.

    Raises:
        UsageError: `train_from` names no part.
    """
    names = list(parts(network))
    if settings.train_from in ("all", "head"):
        return 0 if settings.train_from == "all" else len(names) - 1
    if settings.train_from not in names:
        raise UsageError(f"fine_tune.train_from: no part {settings.train_from!r}; valid: all, {', '.join(names)}, head")
    return names.index(settings.train_from)


def grouped(network: nn.Module, settings: FineTuneRecipe, top: float) -> Iterator[tuple[list[nn.Parameter], float]]:
    """Yield the parameters of each part with its peak learning rate: `top` for the head, less for each part below."""
    named = parts(network)
    for i, modules in enumerate(named.values()):
        yield [p for m in modules for p in m.parameters()], top * settings.lr_decay ** (len(named) - 1 - i)


def set_learning(network: nn.Module, settings: FineTuneRecipe, epoch: int) -> list[str]:
    """Put the network in train mode with only the parts that learn in this epoch (from 0), and return their names.

    Frozen parts run as at inference; with `batch_norm: adapt` their running statistics alone go on.
    """
    named = parts(network)
    first = lowest(network, settings)
    if settings.unfreeze_every is not None:
        first = max(first, len(named) - 1 - epoch // settings.unfreeze_every)
    network.train()
    for i, modules in enumerate(named.values()):
        for module in modules:
            module.requires_grad_(i >= first)
            if i < first:
                module.eval()
                if settings.batch_norm == "adapt":
                    for norm in module.modules():
                        if isinstance(norm, NORMS):
                            norm.train()
    return list(named)[first:]


def _layers(module: nn.Module, prefix: str) -> Iterator[tuple[str, nn.Module]]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if isinstance(child, nn.Sequential) and path in SEQUENCES:
            yield from _layers(child, f"{path}.")
        else:
            yield path, child
