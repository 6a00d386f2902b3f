"""Float file + calibration images -> integer weights whose rounding errors make good for one another. Torch-free.

Weights are rounded one input after another, and those still to come are changed so that what the layer gives on the
images stays what it was: least squares, by the second moments of the layer's inputs (OBQ, Frantar and Alistarh 2022).
Weights use 7 of their 8 bits: x86 without VNNI adds two products of uint8 and int8 in 16 bits, which hold
2 x 255 x 64 and not 2 x 255 x 127. What the lost bit costs, this makes good for (docs/quantisation.md).
"""

import functools
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from hwr_export.errors import UsageError
from hwr_export.qdq import Graph, attribute, node_name, weight_dequantizer
from hwr_export.spec import INPUT

LIMIT = 64  # the largest magnitude of a weight
DAMPING = 0.01  # of the mean second moment, added to each: inputs that are never there leave the sums singular
BLOCK = 128  # weights whose errors are collected before the rest is changed
BATCH = 32

Floats = npt.NDArray[np.float64]
Array = npt.NDArray[Any]


class Rounding:
    """Rounds the weights of quantised files of one float file, whose layers have the same names."""

    def __init__(self, source: onnx.ModelProto, images: npt.NDArray[np.uint8]) -> None:
        """Keep what is needed; `images` uint8 (N, H, W) are those of the calibration."""
        graph = Graph(source)
        self._source, self._images = source, images
        self._layers = {
            node_name(n): (n, w) for n in source.graph.node if (w := _plain_weight(graph, n)) is not None
        }  # fmt: skip
        self._rounded: dict[tuple[str, bytes], Array] = {}

    def apply(self, quantized: onnx.ModelProto) -> int:
        """Replace the integers of a file in place and return of how many layers.

        Grouped convolutions, and layers whose weights are not those of the float file, stay rounded to nearest.
        """
        graph, changed = Graph(quantized), 0
        for node in quantized.graph.node:
            dequantizer = weight_dequantizer(graph, node)
            if dequantizer is None or node_name(node) not in self._layers:
                continue
            tensor = graph.constants.get(dequantizer.input[0])
            scale = graph.array(dequantizer.input[1])
            if tensor is None or scale is None:
                continue
            stored = np.asarray(numpy_helper.to_array(tensor))
            along = attribute(dequantizer, "axis", 1) if scale.size > 1 else 0
            integers = self._integers(node_name(node), np.moveaxis(stored, along, 0), scale)
            if integers is not None:
                made = np.ascontiguousarray(np.moveaxis(integers, 0, along))
                tensor.CopyFrom(numpy_helper.from_array(made, tensor.name))
                changed += 1
        return changed

    def _integers(self, name: str, stored: Array, scale: Array) -> Array | None:
        """Return a layer's integers, int8 as `stored` (outputs first); None where that holds other weights."""
        weight = self._layers[name][1]
        scales = np.broadcast_to(scale.reshape(-1), len(stored)).astype(np.float64)
        # What a linear layer's weight is called differs from file to file, and so may which of its axes is first.
        for turned in (weight,) if weight.ndim > 2 else (weight, weight.T):
            if turned.shape == stored.shape and _is_rounded(turned, stored, scales):
                break
        else:
            return None
        key = (name, scales.tobytes())
        if key not in self._rounded:
            flat = turned.reshape(len(turned), -1).astype(np.float64)
            self._rounded[key] = _rounded(flat, scales, self._moments[name]).reshape(stored.shape).astype(stored.dtype)
        return self._rounded[key]

    @functools.cached_property
    def _moments(self) -> dict[str, Floats]:
        """Return the mean of x x' of each layer's inputs, (inputs, inputs), over images and places."""
        try:
            import onnxruntime
        except ModuleNotFoundError as err:
            raise UsageError("rounding weights needs onnxruntime: pip install 'hwr-export[cpu]'") from err
        model = onnx.ModelProto()
        model.CopyFrom(self._source)
        inputs = list(dict.fromkeys(node.input[0] for node, _ in self._layers.values()))
        del model.graph.output[:]
        model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in inputs)
        session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        sums: dict[str, Floats] = {}
        for start in range(0, len(self._images), BATCH):
            values = session.run(inputs, {INPUT: self._images[start : start + BATCH]})
            seen = dict(zip(inputs, values, strict=True))
            for name, (node, weight) in self._layers.items():
                rows = _rows(node, weight, seen[node.input[0]])
                sums[name] = sums.get(name, 0.0) + (rows.T @ rows).astype(np.float64) / len(rows)
        return sums


def _plain_weight(graph: Graph, node: onnx.NodeProto) -> Array | None:
    """Return the constant weight of a layer that can be written as one matrix product; None of any other node."""
    weight = graph.array(node.input[1]) if len(node.input) > 1 else None
    if weight is None or weight.ndim != {"Conv": 4, "Gemm": 2, "MatMul": 2}.get(node.op_type):
        return None
    padded_by_name = any(a.name == "auto_pad" and a.s not in (b"", b"NOTSET") for a in node.attribute)
    plain = attribute(node, "group", 1) == 1 and attribute(node, "transA", 0) == 0 and not padded_by_name
    return weight if plain else None


def _rows(node: onnx.NodeProto, weight: Array, x: Array) -> npt.NDArray[np.float32]:
    """Return what a layer's outputs are products with: float32 (images x places, inputs)."""
    if node.op_type != "Conv":
        return x.reshape(-1, x.shape[-1])
    settings = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    top, left, bottom, right = settings.get("pads", (0, 0, 0, 0))
    (down, across), (dy, dx) = settings.get("strides", (1, 1)), settings.get("dilations", (1, 1))
    height, width = weight.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    size = (dy * (height - 1) + 1, dx * (width - 1) + 1)
    places = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(2, 3))[:, :, ::down, ::across, ::dy, ::dx]
    return places.transpose(0, 2, 3, 1, 4, 5).reshape(-1, x.shape[1] * height * width)


def _is_rounded(weight: Array, stored: Array, scales: Floats) -> bool:
    shape = (-1, *[1] * (weight.ndim - 1))
    return bool(np.abs(weight / scales.reshape(shape) - stored).max() <= 1)


def _rounded(weight: Floats, scales: Floats, moments: Floats) -> Floats:
    """Return integers for float64 weights (outputs, inputs), the inputs with the largest moments first."""
    n = weight.shape[1]
    order = np.argsort(-np.diag(moments), kind="stable")
    rest = weight[:, order].copy()
    damped = moments[np.ix_(order, order)] + DAMPING * np.diag(moments).mean() * np.eye(n)
    # Row j: how an error in weight j is best made good for by the weights after it, those before it being fixed.
    upper = np.linalg.cholesky(np.linalg.inv(damped)).T
    integers = np.empty_like(rest)
    for start in range(0, n, BLOCK):
        block = slice(start, min(start + BLOCK, n))
        errors = np.zeros((len(rest), block.stop - start))
        for j in range(start, block.stop):
            integers[:, j] = np.clip(np.round(rest[:, j] / scales), -LIMIT, LIMIT)
            errors[:, j - start] = (rest[:, j] - integers[:, j] * scales) / upper[j, j]
            rest[:, j + 1 : block.stop] -= np.outer(errors[:, j - start], upper[j, j + 1 : block.stop])
        rest[:, block.stop :] -= errors @ upper[block, block.stop :]
    return integers[:, np.argsort(order)]
