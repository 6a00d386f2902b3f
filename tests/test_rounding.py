"""Weights rounded so that errors make good for one another: what a layer gives stays, and so do the scales."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hwr_export.datasets import Dataset
from hwr_export.qdq import Graph, node_name, weight_dequantizer
from hwr_export.release import Release
from hwr_export.rounding import LIMIT, Rounding
from hwr_export.runners import onnx_runner
from hwr_export.spec import INPUT, LOGITS
from hwr_export.u8s8 import u8s8_from_onnx
from tests.conftest import ROOT

IMAGES = np.random.default_rng(0).integers(0, 255, (64, 8, 8), dtype=np.uint8)


def one_layer(kind: str, weight: np.ndarray, **settings: object) -> onnx.ModelProto:
    """uint8 images -> float -> one layer."""
    value = helper.make_tensor_value_info
    axes = [1] if kind == "Conv" else [-1]
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["pixels", "axes"], ["x"])
        if kind == "Conv"
        else helper.make_node("Flatten", ["pixels"], ["x"]),
        helper.make_node(kind, ["x", "w"], ["y"], "layer", **settings),
    ]
    constants = [
        numpy_helper.from_array(np.array(axes), "axes"),
        numpy_helper.from_array(weight.astype(np.float32), "w"),
    ]
    graph = helper.make_graph(
        nodes, "one", [value(INPUT, TensorProto.UINT8, ["N", 8, 8])], [value("y", TensorProto.FLOAT, None)], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def nearest(model: onnx.ModelProto, axis: int) -> onnx.ModelProto:
    """The same with its weight as integers, each rounded by itself, and one scale an output."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weight = numpy_helper.to_array(made.graph.initializer[1])
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = (np.abs(weight).max(axis=others) / LIMIT).astype(np.float32)
    shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
    integers = np.round(weight / scale.reshape(shape)).astype(np.int8)
    del made.graph.initializer[1]
    made.graph.initializer.extend([numpy_helper.from_array(integers, "q"), numpy_helper.from_array(scale, "scale")])
    made.graph.node.insert(0, helper.make_node("DequantizeLinear", ["q", "scale"], ["w"], axis=axis))
    return made


def outputs(model: onnx.ModelProto, images: np.ndarray) -> np.ndarray:
    import onnxruntime

    return onnxruntime.InferenceSession(model.SerializeToString()).run(["y"], {INPUT: images})[0]


def integers_of(model: onnx.ModelProto) -> np.ndarray:
    return numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "q"))


RNG = np.random.default_rng(1)
LAYERS = {
    "convolution": ("Conv", RNG.normal(size=(6, 1, 3, 3)), 0, {"pads": [1, 1, 1, 1]}),
    "strides, dilations, uneven padding": (
        "Conv", RNG.normal(size=(6, 1, 3, 2)), 0, {"pads": [2, 0, 1, 3], "strides": [2, 1], "dilations": [2, 3]},
    ),
    "linear, inputs first": ("MatMul", RNG.normal(size=(64, 6)), 1, {}),
    "linear, outputs first": ("Gemm", RNG.normal(size=(6, 64)), 0, {"transB": 1}),
    "linear, square": ("Gemm", RNG.normal(size=(64, 64)), 0, {"transB": 1}),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "weight", "axis", "settings"), LAYERS.values(), ids=LAYERS)
def test_a_layer_gives_what_it_gave_more_nearly_than_with_each_weight_rounded(
    kind: str, weight: np.ndarray, axis: int, settings: dict
) -> None:
    # Smooth images, as ink is: neighbours can make good for one another.
    smooth = np.cumsum(np.cumsum(IMAGES.astype(np.float64) - 127, axis=1), axis=2)
    images = np.clip(127 + smooth / 4, 0, 255).astype(np.uint8)
    model = one_layer(kind, weight, **settings)
    plain = nearest(model, axis)
    rounded = onnx.ModelProto()
    rounded.CopyFrom(plain)
    assert Rounding(model, images).apply(rounded) == 1
    expected = outputs(model, images)
    errors = [float(((outputs(m, images) - expected) ** 2).mean()) for m in (plain, rounded)]
    assert errors[1] < 0.7 * errors[0]
    before, after = integers_of(plain), integers_of(rounded)
    assert after.dtype == np.int8
    assert np.abs(after).max() <= LIMIT
    assert 0 < (before != after).mean() < 0.9
    changed = [t.name for t, o in zip(rounded.graph.initializer, plain.graph.initializer, strict=True) if t != o]
    assert changed == ["q"]


def test_other_weights_are_left_as_they_are() -> None:
    """Whoever quantises may have folded something into them: what is made good for would be another layer's error."""
    model = one_layer("Gemm", RNG.normal(size=(6, 64)), transB=1)
    other = nearest(one_layer("Gemm", RNG.normal(size=(6, 64)), transB=1), 0)
    before = other.SerializeToString()
    assert Rounding(model, IMAGES).apply(other) == 0
    assert other.SerializeToString() == before


def test_grouped_convolutions_stay_rounded_to_nearest() -> None:
    model = one_layer("Conv", RNG.normal(size=(2, 1, 3, 3)), group=1)
    model.graph.node[-1].attribute[0].i = 2
    assert Rounding(model, IMAGES).apply(nearest(model, 0)) == 0


def test_inputs_that_are_never_there_are_no_trouble() -> None:
    blank = np.zeros_like(IMAGES)
    blank[:, 3:5, 3:5] = IMAGES[:, 3:5, 3:5]
    model = one_layer("MatMul", RNG.normal(size=(64, 6)))
    rounded = nearest(model, 1)
    assert Rounding(model, blank).apply(rounded) == 1
    assert np.abs(integers_of(rounded)).max() <= LIMIT


@pytest.mark.parametrize("precision", ["int8", "int8-cpu"])
def test_no_pair_of_products_of_the_reference_release_exceeds_sixteen_bits(precision: str) -> None:
    """What two products of a uint8 activation and such weights come to at most, whichever are added first."""
    release = Release.open(ROOT / "exported" / "digits")
    model = onnx.load_model_from_string(release.read(release.onnx(precision)))
    graph = Graph(model)
    layers = [(node, d) for node in model.graph.node if (d := weight_dequantizer(graph, node)) is not None]
    assert len(layers) == 10
    for node, dequantizer in layers:
        assert 2 * 255 * np.abs(graph.array(dequantizer.input[0]).astype(int)).max() < 2**15, node_name(node)


def test_a_rounded_file_is_nearer_to_the_float_one(mnist_test: Dataset) -> None:
    release = Release.open(ROOT / "exported" / "digits")
    source = onnx.load_model_from_string(release.read(release.onnx("fp32")))
    images, others = mnist_test.images[:256], mnist_test.images[256:756]
    plain = u8s8_from_onnx(source, images, "min-max")
    rounded = onnx.ModelProto()
    rounded.CopyFrom(plain)
    assert Rounding(source, images).apply(rounded) == 10
    logits = []
    for model in (source, plain, rounded):
        with onnx_runner("onnxruntime", model.SerializeToString(), release.spec) as runner:
            logits.append(runner.infer_all(others)[LOGITS])
    errors = [float(((z - logits[0]) ** 2).mean()) for z in logits[1:]]
    assert errors[1] < 0.8 * errors[0]
