"""Traced program -> the same with int8 arithmetic, as TensorRT and OpenVINO read it (torchao's pt2e flow).

Holds always: weights int8 per output channel in [-64, 64] (rounding.py says why), activations int8 per tensor, every
zero point 0, biases in float. The policy says which inputs are quantised, never which outputs: a runtime fuses what
lies between two of them.
"""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.export import Dim, ExportedProgram
from torch.fx import GraphModule, Node

from hwr_export.calibration import TRAINED, Observer
from hwr_export.errors import QuantizationError
from hwr_export.rounding import LIMIT
from hwr_export.spec import BATCH_AXIS, INPUT, ModelSpec

# torchao registers constants in a way that torch 2.14 deprecates, and torch says so in two ways.
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)
with warnings.catch_warnings(action="ignore"):
    from torchao.quantization.pt2e import (
        HistogramObserver,
        MinMaxObserver,
        PerChannelMinMaxObserver,
        UniformQuantizationObserverBase,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e
    from torchao.quantization.pt2e.quantizer import QuantizationAnnotation, QuantizationSpec, Quantizer

EPS = 2.0**-12  # the least scale; TensorRT refuses zero
LEVELS = 255  # between -128 and 127
PERCENTILE = 99.99
BATCH = 128

_aten = torch.ops.aten
LAYERS = (
    _aten.conv1d.default, _aten.conv2d.default, _aten.conv2d.padding, _aten.conv3d.default, _aten.linear.default,
)  # fmt: skip
ADDS = (_aten.add.Tensor, _aten.add_.Tensor)
AVERAGES = (_aten.mean.dim, _aten.adaptive_avg_pool2d.default, _aten.avg_pool2d.default)
NORMS = (_aten.batch_norm.default,)


class PercentileObserver(UniformQuantizationObserverBase):  # type: ignore[misc]
    """The range that holds `PERCENTILE` of the magnitudes of each batch, averaged over batches; the rest saturates."""

    total: torch.Tensor
    batches: torch.Tensor

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.register_buffer("total", torch.zeros(()))
        self.register_buffer("batches", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        magnitudes = x.detach().abs().flatten()
        rank = max(1, round(magnitudes.numel() * PERCENTILE / 100))
        self.total += torch.kthvalue(magnitudes, rank).values
        self.batches += 1
        return x

    def calculate_qparams(self) -> Any:
        limit = self.total / self.batches
        return self._calculate_qparams(-limit, limit)


def activations(observer: Callable[..., Any]) -> QuantizationSpec:
    """Return how activations are quantised: int8, one symmetric scale a tensor, found by `observer`."""
    return QuantizationSpec(
        dtype=torch.int8, quant_min=-128, quant_max=127, qscheme=torch.per_tensor_symmetric,
        observer_or_fake_quant_ctr=observer,
    )  # fmt: skip


def weights(observer: Callable[..., Any]) -> QuantizationSpec:
    """Return how weights are quantised: int8, one symmetric scale an output channel, found by `observer`."""
    return QuantizationSpec(
        dtype=torch.int8, quant_min=-LIMIT, quant_max=LIMIT, qscheme=torch.per_channel_symmetric, ch_axis=0,
        observer_or_fake_quant_ctr=observer,
    )  # fmt: skip


class Int8Quantizer(Quantizer):  # type: ignore[misc]
    """Annotates a traced program with the policy.

    Convolution, linear: input and weight. Residual add: the branch that did not just leave a layer, so that the other
    fuses with its addition; both branches where neither or both did, less the first layer's. Average: input, so that
    what lies before it may stay int8. Max pooling, concatenation and activation functions are left to the runtime: they
    lie before the quantised input of a layer, whose one scale is carried back through them.
    """

    def __init__(self, activation: QuantizationSpec, weight: QuantizationSpec) -> None:
        super().__init__()
        self._activation = activation
        self._weight = weight

    def annotate(self, model: GraphModule) -> GraphModule:
        behind: set[Node] = set()  # what depends on a layer: preprocessing does not
        ends = [node for node in model.graph.nodes if node.target in LAYERS]
        ahead = _ancestors(ends)  # what a layer depends on: decoding does not
        for node in model.graph.nodes:
            if node.target in LAYERS:
                self._mark(node, {node.args[0]: self._activation, node.args[1]: self._weight})
            elif node in ahead and set(node.all_input_nodes) & behind:
                if node.target in ADDS and _is_residual(node):
                    self._mark(node, {_branch_to_quantize(node): self._activation})
                elif node.target in AVERAGES:
                    self._mark(node, {node.args[0]: self._activation})
            if node.target in LAYERS or set(node.all_input_nodes) & behind:
                behind.add(node)
        return model

    def validate(self, model: GraphModule) -> None:
        if not any(node.target in LAYERS for node in model.graph.nodes):
            raise QuantizationError("the network has no convolution and no linear layer; there is nothing to quantise")

    @staticmethod
    def _mark(node: Node, inputs: dict[Any, QuantizationSpec]) -> None:
        node.meta["quantization_annotation"] = QuantizationAnnotation(input_qspec_map=inputs, _annotated=True)


def int8_program(
    program: ExportedProgram,
    spec: ModelSpec,
    images: npt.NDArray[np.uint8],
    observer: Observer,
    scales: Sequence[float] = (),
) -> ExportedProgram:
    """Calibrate on images, uint8 (N, H, W), and return the program in int8, batch norm folded.

    Args:
        scales: for the observer `trained`, one an activation in graph order, instead of calibrating.

    Raises:
        QuantizationError: nothing to quantise, scales that do not fit, or torchao cannot take the program.
    """
    made: dict[Observer, Any] = {
        "min-max": MinMaxObserver,
        "histogram": HistogramObserver,
        "percentile": PercentileObserver,
        TRAINED: MinMaxObserver,
    }
    quantizer = Int8Quantizer(
        activations(made[observer].with_args(eps=EPS)), weights(PerChannelMinMaxObserver.with_args(eps=EPS))
    )
    try:
        with warnings.catch_warnings(action="ignore"):
            prepared = prepare_pt2e(program.module(), quantizer)
            with torch.no_grad():  # inference mode would leave tensors behind that cannot be traced
                for start in range(0, len(images), size := min(BATCH, spec.max_batch)):
                    prepared(torch.tensor(images[start : start + size]))
            if observer == TRAINED:
                _set_scales(prepared, scales)
            return traced(convert_pt2e(prepared), spec)
    except QuantizationError:
        raise
    except Exception as err:  # torchao and torch.export have no common base for what they raise
        lines = [line.strip() for line in str(err).splitlines() if line.strip()]
        raise QuantizationError(f"torchao cannot quantise the program: {' '.join(lines[:3])[:400]}") from err


def activation_observers(prepared: GraphModule) -> list[Any]:
    """Return what observes (or, in training, rounds) each activation of a prepared module, in graph order."""
    found: dict[str, Any] = {}
    for node in prepared.graph.nodes:
        if node.op == "call_module" and "activation_post_process" in str(node.target):
            module = prepared.get_submodule(str(node.target))
            if module.qscheme == torch.per_tensor_symmetric:
                found[str(node.target)] = module
    return list(found.values())


def _set_scales(prepared: GraphModule, scales: Sequence[float]) -> None:
    observers = activation_observers(prepared)
    if len(observers) != len(scales):
        raise QuantizationError(
            f"the checkpoint has {len(scales)} scales of activations and the network {len(observers)} to set; "
            "run `python -m train qat` again"
        )
    for observer, scale in zip(observers, scales, strict=True):
        limit = scale * LEVELS / 2
        observer.min_val.fill_(-limit)
        observer.max_val.fill_(limit)


def traced(module: torch.nn.Module, spec: ModelSpec) -> ExportedProgram:
    """Trace a converted module again, with the dynamic batch of every release."""
    batch = Dim(BATCH_AXIS, min=1, max=spec.max_batch)
    example = torch.zeros((2, *spec.image_shape), dtype=torch.uint8)
    return torch.export.export(module, (example,), dynamic_shapes={INPUT: {0: batch}})


def layer_names(program: ExportedProgram) -> list[str]:
    """Return the module path of every layer that is quantised, in the order of the graph; `#2` where used again."""
    seen: Counter[str] = Counter()
    names = []
    for node in program.graph.nodes:
        if node.target in LAYERS:
            path = _path(node)
            seen[path] += 1
            names.append(path if seen[path] == 1 else f"{path}#{seen[path]}")
    return names


def _path(node: Node) -> str:
    stack = [str(path) for path, _ in (node.meta.get("nn_module_stack") or {}).values()]
    return (stack[-1].removeprefix("L['self'].").removeprefix("network.") if stack else "") or node.name


def _is_residual(node: Node) -> bool:
    """Return whether two computed tensors of one shape are added, and not a bias."""
    shapes = [a.meta["val"].shape for a in node.args[:2] if isinstance(a, Node) and "val" in a.meta]
    computed = all(isinstance(a, Node) and a.op == "call_function" for a in node.args[:2])
    return computed and len(shapes) == 2 and shapes[0] == shapes[1]


def _branch_to_quantize(node: Node) -> Node:
    first, second = node.args[:2]
    assert isinstance(first, Node)
    assert isinstance(second, Node)
    return second if _leaves_layer(first) or not _leaves_layer(second) else first


def _leaves_layer(node: Node) -> bool:
    source = node.args[0] if node.target in NORMS else node
    return isinstance(source, Node) and source.target in LAYERS and len(source.users) == 1


def _ancestors(nodes: Sequence[Node]) -> set[Node]:
    found: set[Node] = set()
    todo = list(nodes)
    while todo:
        for node in todo.pop().all_input_nodes:
            if node not in found:
                found.add(node)
                todo.append(node)
    return found
