"""ONNX files as other people's tools wrote them, made by code: the model zoo's MNIST, and old operators."""

import io
import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper

INPUT3, PLUS214 = "Input3", "Plus214_Output_0"


def save(folder: Path, model: ModelProto | bytes, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    return path


def constant(name: str, value: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(value, name)


def zoo_mnist(opset: int, ir: int = 3, batch: int | str = 1) -> ModelProto:
    """The network that CNTK was taught, in the form it had in the model zoo: IR 3, weights among the inputs."""
    rng = np.random.default_rng(8)

    def weight(*shape: int) -> np.ndarray:
        return rng.normal(0, 0.1, shape).astype(np.float32)

    weights = [
        constant("Parameter5", weight(8, 1, 5, 5)),
        constant("Parameter6", weight(8, 1, 1)),
        constant("Parameter87", weight(16, 8, 5, 5)),
        constant("Parameter88", weight(16, 1, 1)),
        constant("Parameter193", weight(16, 4, 4, 10)),
        constant("Parameter193_reshape1_shape", np.array([256, 10], np.int64)),
        constant("Pooling160_Output_0_reshape0_shape", np.array([1 if batch == 1 else -1, 256], np.int64)),
        constant("Parameter194", weight(1, 10)),
    ]

    def pool(source: str, target: str, size: int) -> onnx.NodeProto:
        sides = [size, size]
        return helper.make_node("MaxPool", [source], [target], kernel_shape=sides, strides=sides, auto_pad="NOTSET")

    def conv(source: str, kernel: str, target: str) -> onnx.NodeProto:
        named = {"kernel_shape": [5, 5], "strides": [1, 1], "auto_pad": "SAME_UPPER", "group": 1, "dilations": [1, 1]}
        return helper.make_node("Conv", [source, kernel], [target], **named)

    nodes = [
        helper.make_node("Reshape", ["Parameter193", "Parameter193_reshape1_shape"], ["Parameter193_reshape1"]),
        conv(INPUT3, "Parameter5", "Convolution28_Output_0"),
        helper.make_node("Add", ["Convolution28_Output_0", "Parameter6"], ["Plus30_Output_0"]),
        helper.make_node("Relu", ["Plus30_Output_0"], ["ReLU32_Output_0"]),
        pool("ReLU32_Output_0", "Pooling66_Output_0", 2),
        conv("Pooling66_Output_0", "Parameter87", "Convolution110_Output_0"),
        helper.make_node("Add", ["Convolution110_Output_0", "Parameter88"], ["Plus112_Output_0"]),
        helper.make_node("Relu", ["Plus112_Output_0"], ["ReLU114_Output_0"]),
        pool("ReLU114_Output_0", "Pooling160_Output_0", 3),
        helper.make_node(
            "Reshape", ["Pooling160_Output_0", "Pooling160_Output_0_reshape0_shape"], ["Pooling160_Output_0_reshape0"]
        ),
        helper.make_node("MatMul", ["Pooling160_Output_0_reshape0", "Parameter193_reshape1"], ["Times212_Output_0"]),
        helper.make_node("Add", ["Times212_Output_0", "Parameter194"], [PLUS214]),
    ]
    image = helper.make_tensor_value_info(INPUT3, TensorProto.FLOAT, [batch, 1, 28, 28])
    listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
    scores = helper.make_tensor_value_info(PLUS214, TensorProto.FLOAT, [batch, 10])
    graph = helper.make_graph(nodes, "CNTKGraph", [image, *listed], [scores], weights)
    return helper.make_model(graph, producer_name="CNTK", ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])


def small(opset: int, nodes: list[onnx.NodeProto], weights: list[TensorProto], ir: int = 3) -> ModelProto:
    """A graph from the float `x`, 1x4x8x8, to `y`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    listed = [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in weights]
    graph = helper.make_graph(nodes, "small", [x, *listed], [y], weights)
    return helper.make_model(graph, ir_version=ir, opset_imports=[helper.make_opsetid("", opset)])


def normalised(opset: int) -> ModelProto:
    """BatchNormalization and Dropout with the attributes that they had at that time, for inference."""
    rng = np.random.default_rng(9)
    statistics = [constant(n, rng.uniform(0.5, 1, 4).astype(np.float32)) for n in ("scale", "bias", "mean", "variance")]
    old = {"is_test": 1, "consumed_inputs": [0, 0, 0, 1, 1]} if opset < 6 else {"is_test": 1} if opset < 7 else {}
    spatial = {"spatial": 1} if opset < 9 else {}
    names = [t.name for t in statistics]
    batch_norm = helper.make_node("BatchNormalization", ["x", *names], ["n"], epsilon=1e-5, **old, **spatial)
    ratio = {} if opset >= 12 else {"ratio": 0.5}
    test = {"is_test": 1} if opset < 7 else {}
    dropout = helper.make_node("Dropout", ["n"], ["y"], **ratio, **test)
    return small(opset, [batch_norm, dropout], statistics)


def legacy_resnet18(opset: int) -> bytes:
    """torchvision's, with random weights, by the exporter that PyTorch had until 2.9."""
    import torch
    from torchvision.models import resnet18

    network = resnet18(weights=None).eval()
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, 64, 64),),
            file,
            dynamo=False,
            opset_version=opset,
            input_names=["input"],
            output_names=["output"],
            dynamic_axes={"input": {0: "batch"}, "output": {0: "batch"}},
        )
    return file.getvalue()


def one(operator: str, opset: int, **attributes: object) -> ModelProto:
    return small(opset, [helper.make_node(operator, ["x"], ["y"], **attributes)], [])


def dropout_in_training() -> ModelProto:
    inputs = [constant("ratio", np.float32(0.5)), constant("training", np.array(True))]
    return small(12, [helper.make_node("Dropout", ["x", "ratio", "training"], ["y"])], inputs)


def batch_norm_in_training() -> ModelProto:
    statistics = [constant(n, np.ones(4, np.float32)) for n in ("scale", "bias", "mean", "variance")]
    outputs = ["y", "running_mean", "running_variance"]
    names = ["x", *(t.name for t in statistics)]
    return small(15, [helper.make_node("BatchNormalization", names, outputs, training_mode=1)], statistics)


def own_function() -> ModelProto:
    """A graph that calls a function which the file itself defines, as exporters of PyTorch write modules."""
    model = small(17, [helper.make_node("Twice", ["x"], ["y"], domain="my.own")], [], ir=8)
    body = [helper.make_node("Add", ["a", "a"], ["b"])]
    model.functions.append(helper.make_function("my.own", "Twice", ["a"], ["b"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.append(helper.make_opsetid("my.own", 1))
    return model
