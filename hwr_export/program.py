"""Network + preprocessing + calibration -> one `ExportedProgram`: uint8 in, logits and probabilities out.

Holds always: the network is in eval mode, nothing in the graph is random, and the batch is dynamic from 1 to max_batch.
"""

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from hwr_export.errors import ExportError
from hwr_export.spec import BATCH_AXIS, INPUT, ModelSpec


class Recognizer(nn.Module):
    """What is deployed: raw pixels to decisions.

    `network` takes float32 (N, C, H, W) and returns logits (N, classes), alone or first in a tuple. Where it takes
    uint8 (a saved program that has its own preprocessing), pixels reach it as they are.
    """

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, network: nn.Module, spec: ModelSpec) -> None:
        super().__init__()
        self.network = network
        self.takes_pixels = _input_dtype(network) == torch.uint8
        p = spec.preprocessing
        self.channels = p.channels
        self.temperature = spec.temperature
        self.register_buffer("scale", torch.tensor(1 / (255 * p.std), dtype=torch.float64).float())
        self.register_buffer("offset", torch.tensor(-p.mean / p.std, dtype=torch.float64).float())
        self.training = network.training  # and not .eval(), which a loaded program refuses

    def preprocess(self, image: torch.Tensor) -> torch.Tensor:
        """uint8 (N, H, W) -> float32 (N, C, H, W). Cast first: TensorRT moves no uint8 tensor about."""
        pixels = image.to(self.scale.dtype) * self.scale + self.offset
        return pixels.unsqueeze(1).expand(-1, self.channels, -1, -1) if self.channels > 1 else pixels.unsqueeze(1)

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.decide(image if self.takes_pixels else self.preprocess(image))

    def decide(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return logits and probabilities of what `preprocess` returned."""
        output = self.network(image)
        logits = output[0] if isinstance(output, tuple | list) else output
        return logits, torch.softmax(logits / self.temperature, dim=1)


class InHalf(nn.Module):
    """A copy of a network that computes in float16: float32 (N, C, H, W) -> float32 logits (N, classes)."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()
        self.training = network.training

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        output = self.network(image.half())
        logits: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
        return logits.float()


def network_in_half(network: nn.Module) -> nn.Module:
    """Return a copy of a network that computes in float16 between float32 preprocessing and float32 logits.

    Raises:
        ExportError: it is a saved program, in whose graph the precision is written.
    """
    if isinstance(network, torch.fx.GraphModule):
        raise ExportError(
            "a saved program computes in the precision it was traced with; for fp16 trace it from a network in half, "
            "or export the network with --module"
        )
    return InHalf(network)


def program_from_network(network: nn.Module, spec: ModelSpec) -> ExportedProgram:
    """Trace a network with its preprocessing.

    Raises:
        ExportError: train mode, randomness, a fixed or too narrow batch, a shape that does not fit, or an operation
            that torch.export cannot trace.
    """
    refuse_train_mode(network)
    recognizer = Recognizer(network, spec)
    _refuse_fixed_batch(network)
    height, width = spec.image_shape
    # Batch 2: tracing with 1 would let torch specialise on it.
    example = torch.zeros((2, height, width), dtype=torch.uint8)
    _refuse_wrong_output(recognizer, example, spec)
    batch = Dim(BATCH_AXIS, min=1, max=spec.max_batch)
    try:
        program = torch.export.export(recognizer, (example,), dynamic_shapes={INPUT: {0: batch}})
    except Exception as err:  # torch.export has no common base for what it raises
        raise ExportError(
            f"torch.export cannot trace {type(network).__name__} with a batch of 1 to {spec.max_batch}: {_gist(err)}"
        ) from err
    refuse_randomness(program)
    return program


def refuse_train_mode(network: nn.Module) -> None:
    """Raise ExportError if any part of the network is in train mode."""
    training = [name or type(network).__name__ for name, module in network.named_modules() if module.training]
    if training:
        raise ExportError(
            f"{len(training)} module(s) are in train mode ({', '.join(training[:3])}): dropout and batch statistics "
            "would be exported; call .eval() on the network first"
        )


def refuse_randomness(program: ExportedProgram) -> None:
    """Raise ExportError if the traced graph still trains or draws random numbers, whatever its flags said."""
    for node in program.graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        arguments = _arguments(node)
        name = node.target.overloadpacket.__name__
        where = _module_of(node)
        if "dropout" in name:
            if arguments.get("train"):
                raise ExportError(f"{name} at {where} is still active: use nn.Dropout, or pass training=self.training")
        elif arguments.get("training"):
            raise ExportError(f"{name} at {where} still uses batch statistics; export the network in eval mode")
        elif torch.Tag.nondeterministic_seeded in node.target.tags:
            raise ExportError(f"{name} at {where} draws random numbers; a deployed model must not")


def _arguments(node: torch.fx.Node) -> dict[str, Any]:
    schema = node.target._schema  # type: ignore[union-attr]
    positional = zip((a.name for a in schema.arguments), node.args, strict=False)
    return {**dict(positional), **node.kwargs}


def _module_of(node: torch.fx.Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    names = [str(path) for path, _ in stack.values()]
    return (names[-1].removeprefix("L['self'].") if names else "") or node.name


def _refuse_fixed_batch(network: nn.Module) -> None:
    for value in _input_values(network):
        if isinstance(value.shape[0], int):
            raise ExportError(
                f"the program was saved with a fixed batch of {value.shape[0]}; save it again with "
                'dynamic_shapes={0: torch.export.Dim("batch", min=1, max=256)} for its input'
            )


def _refuse_wrong_output(recognizer: Recognizer, example: torch.Tensor, spec: ModelSpec) -> None:
    try:
        with torch.inference_mode():
            logits, _ = recognizer(example)
    except Exception as err:  # a user's network may raise anything
        raise ExportError(
            f"the network does not take float32 (N, {spec.preprocessing.channels}, {spec.image_shape[0]}, "
            f"{spec.image_shape[1]}): {_gist(err)}"
        ) from err
    if tuple(logits.shape) != (len(example), len(spec.labels)):
        raise ExportError(
            f"the network returned {tuple(logits.shape)} for a batch of {len(example)}, expected "
            f"({len(example)}, {len(spec.labels)}): one logit for each of the labels {spec.labels!r}"
        )


def _input_dtype(network: nn.Module) -> torch.dtype | None:
    return next((value.dtype for value in _input_values(network)), None)


def _input_values(network: nn.Module) -> Iterator[torch.Tensor]:
    """Yield the recorded inputs of a loaded program; nothing for an ordinary module."""
    if isinstance(network, torch.fx.GraphModule):
        for node in network.graph.nodes:
            if node.op == "placeholder" and isinstance(node.meta.get("val"), torch.Tensor):
                yield node.meta["val"]


def _gist(err: Exception) -> str:
    """Return the first lines that say something, on one line."""
    lines = [line.strip() for line in str(err).splitlines() if line.strip()]
    return f"{type(err).__name__}: {' '.join(lines[:3])[:400]}"
