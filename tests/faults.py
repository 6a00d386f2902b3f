"""Forty and more ways in which a deployed model has gone wrong, as edits of an ONNX file; seeded where chance decides.

An edit changes a `ModelProto` in place. Beside it stand the precision of the file that it is made to and the stage that
a verdict should hold responsible.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from hwr_export.labels import DIGITS

Edit = Callable[[ModelProto], None]
RNG_SEED = 5


@dataclass(frozen=True)
class Fault:
    name: str
    precision: str
    stage: str
    edit: Edit
    called: str | None = None  # the name that the verdict should give it


# -- finding and changing --------------------------------------------------------------------------------------------


def tensor(model: ModelProto, name: str) -> TensorProto:
    return next(t for t in model.graph.initializer if t.name == name)


def weights(model: ModelProto, dims: int = 4) -> list[TensorProto]:
    return [t for t in model.graph.initializer if len(t.dims) == dims and t.data_type == TensorProto.FLOAT]


def change(found: TensorProto, make: Callable[[np.ndarray], np.ndarray]) -> None:
    old = numpy_helper.to_array(found)
    new = make(old.copy()).astype(old.dtype).reshape(old.shape).copy()
    found.CopyFrom(numpy_helper.from_array(new, found.name))


def change_named(name: str, make: Callable[[np.ndarray], np.ndarray]) -> Edit:
    return lambda model: change(tensor(model, name), make)


def nodes(model: ModelProto, operator: str) -> list[NodeProto]:
    return [n for n in model.graph.node if n.op_type == operator]


def replace_node(model: ModelProto, old: NodeProto, operator: str, inputs: list[str], **attributes: object) -> None:
    where = list(model.graph.node).index(old)
    new = helper.make_node(operator, inputs, list(old.output), name=old.name, **attributes)
    model.graph.node.remove(old)
    model.graph.node.insert(where, new)


def before_input(*made: NodeProto) -> Edit:
    """Put nodes between the input and whoever takes it; the first takes `image`, the last gives `turned`, float."""

    def edit(model: ModelProto) -> None:
        for node in model.graph.node:
            node.input[:] = ["turned" if name == "image" else name for name in node.input]
        cast = helper.make_node("Cast", ["image"], ["as_float"], to=TensorProto.FLOAT)
        for i, node in enumerate([cast, *(copy(n) for n in made)]):
            model.graph.node.insert(i, node)

    return edit


def copy(node: NodeProto) -> NodeProto:
    made = NodeProto()
    made.CopyFrom(node)
    return made


# -- faults of an exported graph -------------------------------------------------------------------------------------


def one_weight(by: Callable[[float], float]) -> Edit:
    def edit(model: ModelProto) -> None:
        rng = np.random.default_rng(RNG_SEED)
        layers = weights(model)

        def move(values: np.ndarray) -> np.ndarray:
            flat = values.reshape(-1)
            i = int(np.abs(flat).argmax())
            flat[i] = by(float(flat[i]))
            return values

        change(layers[int(rng.integers(len(layers)))], move)

    return edit


def permute(axis: int) -> Edit:
    def edit(model: ModelProto) -> None:
        rng = np.random.default_rng(RNG_SEED)
        change(
            tensor(model, "network.blocks.0.conv2.weight"),
            lambda v: v.take(rng.permutation(v.shape[axis]), axis=axis),
        )

    return edit


def swap_classes(order: list[int]) -> Edit:
    def edit(model: ModelProto) -> None:
        for found in model.graph.initializer:
            if "classifier" in found.name and found.dims and found.dims[0] == 10:
                change(found, lambda v: v[order])

    return edit


def drop(operator: str, number: int) -> Edit:
    def edit(model: ModelProto) -> None:
        node = nodes(model, operator)[number]
        replace_node(model, node, "Identity", [node.input[0]])

    return edit


def shift_padding(model: ModelProto) -> None:
    node = nodes(model, "Conv")[0]
    for attribute in node.attribute:
        if attribute.name == "pads":
            attribute.ints[:] = [0, 0, 2, 2]


def pool_by_maximum(model: ModelProto) -> None:
    (node,) = nodes(model, "ReduceMean")
    replace_node(model, node, "ReduceMax", list(node.input), keepdims=0)


def softmax_over_the_batch(model: ModelProto) -> None:
    (node,) = nodes(model, "Softmax")
    replace_node(model, node, "Softmax", list(node.input), axis=0)


def lose_temperature(model: ModelProto) -> None:
    (node,) = nodes(model, "Div")
    change(tensor(model, node.input[1]), np.ones_like)


def metadata(**values: str) -> Edit:
    def edit(model: ModelProto) -> None:
        kept = {p.key: p.value for p in model.metadata_props} | {f"hwr.{k}": v for k, v in values.items()}
        helper.set_model_props(model, kept)

    return edit


def stale(model: ModelProto) -> None:
    """Yesterday's training run: like today's but for its weights, and it says so."""
    rng = np.random.default_rng(RNG_SEED)
    for found in weights(model):
        change(found, lambda v: v + rng.normal(0, 0.3 * v.std(), v.shape))
    metadata(checkpoint_sha256="0" * 64)(model)


def scale_and_shift(scale: float | None, shift: float | None) -> Edit:
    def edit(model: ModelProto) -> None:
        for name, value in (("scale", scale), ("offset", shift)):
            if value is not None:
                change(tensor(model, name), lambda v, value=value: np.full_like(v, value))

    return edit


def negative(model: ModelProto) -> None:
    """Black ink on white paper, as most scanners give it, taken for the opposite."""
    model.graph.initializer.append(numpy_helper.from_array(np.float32(255), "white"))
    before_input(helper.make_node("Sub", ["white", "as_float"], ["turned"]))(model)


def mirror(model: ModelProto) -> None:
    for name, value in (("starts", [-1]), ("ends", [-1000]), ("axes", [2]), ("steps", [-1])):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value, np.int64), f"mirror_{name}"))
    inputs = ["as_float", *(f"mirror_{n}" for n in ("starts", "ends", "axes", "steps"))]
    before_input(helper.make_node("Slice", inputs, ["turned"]))(model)


transpose = before_input(helper.make_node("Transpose", ["as_float"], ["turned"], perm=[0, 2, 1]))


# -- faults of a quantised graph -------------------------------------------------------------------------------------


def activation_scales(model: ModelProto) -> Iterator[TensorProto]:
    known = {t.name: t for t in model.graph.initializer}
    for node in nodes(model, "QuantizeLinear"):
        if node.input[1] in known and not known[node.input[1]].dims:
            yield known[node.input[1]]


def weight_quantizers(model: ModelProto) -> list[NodeProto]:
    known = {t.name: t for t in model.graph.initializer}
    return [n for n in nodes(model, "DequantizeLinear") if n.input[0] in known and len(known[n.input[0]].dims) == 4]


def scale_one_activation(by: float, number: int) -> Edit:
    return lambda model: change(list(activation_scales(model))[number], lambda v: v * by)


def clip_calibration(by: float) -> Edit:
    def edit(model: ModelProto) -> None:
        for found in {t.name: t for t in activation_scales(model)}.values():
            change(found, lambda v: v * by)

    return edit


def weight_scale(by: float, number: int) -> Edit:
    return lambda model: change(tensor(model, weight_quantizers(model)[number].input[1]), lambda v: v * by)


def zero_integers(model: ModelProto) -> None:
    change(tensor(model, weight_quantizers(model)[3].input[0]), np.zeros_like)


def shift_zero_point(model: ModelProto) -> None:
    """Quantised with one zero point and dequantised with another."""
    quantized = nodes(model, "QuantizeLinear")[2]
    (back,) = [n for n in nodes(model, "DequantizeLinear") if n.input[0] == quantized.output[0]]
    found = numpy_helper.to_array(tensor(model, back.input[2]))
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(found + 60, found.dtype), "shifted"))
    back.input[2] = "shifted"


def halves_overflow(model: ModelProto) -> None:
    """A weight above 65,504 is infinite in half precision."""
    change(weights(model)[2], lambda v: np.where(v == v.max(), np.inf, v))


def coarse(model: ModelProto) -> None:
    """Rounded to three bits and called half precision."""
    for found in weights(model):
        change(found, lambda v: np.round(v / np.abs(v).max() * 3) * np.abs(v).max() / 3)


E_, P_, Q_ = "export", "preprocessing", "quantization"
FAULTS = [
    Fault("one weight moved", "fp32", E_, one_weight(lambda v: v + 0.5)),
    Fault("one weight moved a little", "fp32", E_, one_weight(lambda v: v + 1e-3)),
    Fault("one weight's sign", "fp32", E_, one_weight(lambda v: -v)),
    Fault("one weight's exponent", "fp32", E_, one_weight(lambda v: v * 2.0**16)),
    Fault("one weight NaN", "fp32", E_, one_weight(lambda v: float("nan"))),
    Fault("bias zeroed", "fp32", E_, change_named("network.blocks.1.conv1.weight_bias", np.zeros_like)),
    Fault("last bias zeroed", "fp32", E_, change_named("network.classifier.bias", np.zeros_like)),
    Fault("last bias huge", "fp32", E_, change_named("network.classifier.bias", lambda v: v + 30 * np.eye(10)[8])),
    Fault("output channels in another order", "fp32", E_, permute(0)),
    Fault("input channels in another order", "fp32", E_, permute(1)),
    Fault("a layer scaled", "fp32", E_, change_named("network.blocks.1.conv2.weight", lambda v: 1.5 * v)),
    Fault("kernels turned", "fp32", E_, change_named("network.stem.0.weight", lambda v: v[:, :, ::-1, ::-1])),
    Fault("activation dropped", "fp32", E_, drop("Relu", 1)),
    Fault("layer dropped", "fp32", E_, drop("Conv", 2)),
    Fault("residual dropped", "fp32", E_, drop("Add", 1)),
    Fault("padding shifted", "fp32", E_, shift_padding),
    Fault("maximum for average", "fp32", E_, pool_by_maximum),
    Fault("two labels swapped", "fp32", E_, swap_classes([0, 7, 2, 3, 4, 5, 6, 1, 8, 9]), "swapped labels (1, 7)"),
    Fault("labels shifted", "fp32", E_, swap_classes([*range(1, 10), 0]), f"swapped labels ({', '.join(DIGITS)})"),
    Fault("labels of another order", "fp32", E_, metadata(labels_sha256="0" * 64, labels="10"), "swapped labels"),
    Fault("temperature lost", "fp32", E_, lose_temperature, "temperature lost"),
    Fault("softmax over the batch", "fp32", E_, softmax_over_the_batch, "softmax over the wrong axis"),
    Fault("stale file", "fp32", E_, stale, "stale file"),
    Fault("transposed", "fp32", P_, transpose, "transposed input"),
    Fault("negative", "fp32", P_, negative, "inverted polarity"),
    Fault("mirrored", "fp32", P_, mirror),
    Fault("raw pixels", "fp32", P_, scale_and_shift(1.0, 0.0), "missing normalisation"),
    Fault("mean and deviation forgotten", "fp32", P_, scale_and_shift(1 / 255, 0.0), "missing normalisation"),
    Fault("mean forgotten", "fp32", P_, scale_and_shift(None, 0.0), "missing normalisation"),
    Fault("half precision overflows", "fp16", Q_, halves_overflow),
    Fault("three bits for sixteen", "fp16", Q_, coarse),
    Fault("transposed at half precision", "fp16", P_, transpose, "transposed input"),
    Fault("one activation scale", "int8-cpu", Q_, scale_one_activation(0.05, 3)),
    Fault("one activation scale, coarse", "int8-cpu", Q_, scale_one_activation(60.0, 4)),
    Fault("clipped calibration", "int8-cpu", Q_, clip_calibration(0.1)),
    Fault("calibration far too wide", "int8-cpu", Q_, clip_calibration(20.0)),
    Fault("one weight scale", "int8-cpu", Q_, weight_scale(4.0, 2)),
    Fault("one layer's integers zero", "int8-cpu", Q_, zero_integers),
    Fault("zero point off", "int8-cpu", Q_, shift_zero_point),
    Fault("stale integers", "int8-cpu", Q_, metadata(checkpoint_sha256="0" * 64), "stale file"),
    Fault("integers transposed", "int8-cpu", P_, transpose, "transposed input"),
    Fault("integers negative", "int8-cpu", P_, negative, "inverted polarity"),
    Fault("integers of raw pixels", "int8-cpu", P_, scale_and_shift(1.0, 0.0), "missing normalisation"),
]  # fmt: skip


# -- files to break ---------------------------------------------------------------------------------------------------


def rounded_to_halves(model: bytes) -> bytes:
    """The weights in half precision; the arithmetic stays float32."""
    loaded = onnx.load_from_string(model)
    for found in loaded.graph.initializer:
        if found.data_type == TensorProto.FLOAT and found.name not in ("scale", "offset"):
            change(found, lambda v: v.astype(np.float16))
    return loaded.SerializeToString()


def with_integers(model: bytes, images: np.ndarray, folder) -> bytes:
    """U8S8 for ONNX Runtime, by its own static quantiser; convolutions and matrix products alone."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Images(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches = iter([{"image": images[i : i + 64]} for i in range(0, len(images), 64)])

        def get_next(self):
            return next(self.batches, None)

    source, target = folder / "float.onnx", folder / "integer.onnx"
    source.write_bytes(model)
    quantize_static(
        source,
        target,
        Images(),
        quant_format=QuantFormat.QDQ,
        op_types_to_quantize=["Conv", "Gemm", "MatMul"],
        per_channel=True,
        reduce_range=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return target.read_bytes()
