"""Where the pairs of QuantizeLinear and DequantizeLinear go, and that the ranges behind them are those asked for."""

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import nn

from hwr_export.datasets import Dataset
from hwr_export.errors import QuantizationError
from hwr_export.models import build_model
from hwr_export.onnx_model import onnx_from_program
from hwr_export.program import program_from_network
from hwr_export.qdq import DQ, Graph, Q, quantized_layers
from hwr_export.qdq_lint import lint
from hwr_export.quantizer import EPS, PERCENTILE, PercentileObserver, int8_program, layer_names
from hwr_export.rounding import LIMIT
from hwr_export.runners import onnx_runner
from hwr_export.spec import LOGITS, ModelSpec, Preprocessing


def spec_of(classes: int = 10, channels: int = 1) -> ModelSpec:
    preprocessing = Preprocessing(mean=0.13, std=0.31, channels=channels)
    return ModelSpec(labels="0123456789"[:classes], preprocessing=preprocessing, max_batch=8, parameters=1)


def int8(network: nn.Module, images: np.ndarray, spec: ModelSpec) -> onnx.ModelProto:
    program = program_from_network(network.eval(), spec)
    quantized = int8_program(program, spec, images, "min-max")
    return onnx.load_model_from_string(onnx_from_program(quantized, spec, {}))


def quantized_inputs(model: onnx.ModelProto) -> dict[str, list[bool]]:
    """For every node that computes: which of its inputs come from a DequantizeLinear."""
    graph = Graph(model)
    computing = [n for n in model.graph.node if n.op_type not in (Q, DQ)]
    return {f"{n.op_type} {i}": [graph.dequantizer(v) is not None for v in n.input] for i, n in enumerate(computing)}


@pytest.fixture(scope="module")
def images(mnist_test: Dataset) -> np.ndarray:
    return mnist_test.images[:40]


def test_the_policy_on_a_residual_network(images: np.ndarray) -> None:
    torch.manual_seed(0)
    model = int8(build_model("edge", 10, {"channels": [4, 4, 6, 8]}), images, spec_of())
    found = quantized_inputs(model)
    operators = [name.split()[0] for name in found]
    layers = [inputs for name, inputs in found.items() if name.startswith(("Conv", "Gemm"))]
    assert len(layers) == 11
    assert all(inputs[:2] == [True, True] and not any(inputs[2:]) for inputs in layers)  # bias in float
    adds = [inputs for name, inputs in found.items() if name.startswith("Add")]
    # The first adds the offset of the preprocessing; of a residual one branch fuses with its convolution.
    assert adds == [[False, False], [False, True], [False, True], [False, True]]
    assert [inputs[0] for name, inputs in found.items() if name.startswith("ReduceMean")] == [True]
    assert not any(any(i) for name, i in found.items() if name.startswith(("Relu", "Softmax", "Div", "Cast", "Mul")))
    assert operators.count("Relu") == 7  # batch norm is folded, nothing of it is left
    assert not [op for op in operators if "Norm" in op]
    assert lint(model) == []


def test_scales_are_symmetric_and_cover_what_was_seen(images: np.ndarray) -> None:
    torch.manual_seed(0)
    spec = spec_of()
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 26 * 26, 10)).eval()
    model = int8(network, images, spec)
    graph = Graph(model)
    conv = next(node for node in model.graph.node if node.op_type == "Conv")
    seen = np.abs((images / 255 - 0.13) / 0.31).max()
    scale = graph.array(graph.dequantizer(conv.input[0]).input[1])
    np.testing.assert_allclose(scale, seen / 127.5, rtol=1e-5)
    stored = graph.dequantizer(conv.input[1])
    weight, scales = graph.array(stored.input[0]), graph.array(stored.input[1])
    assert weight.dtype == np.int8
    assert np.abs(weight.astype(int)).max() <= LIMIT
    float_weight = network[0].weight.detach().numpy()
    np.testing.assert_allclose(scales, np.abs(float_weight).max(axis=(1, 2, 3)) / LIMIT, rtol=1e-5)
    assert np.abs(weight * scales.reshape(-1, 1, 1, 1) - float_weight).max() <= scales.max() / 2 + 1e-7
    zeros = [graph.constants[n.input[2]] for n in model.graph.node if n.op_type in (Q, DQ) and len(n.input) > 2]
    assert all(t.data_type == TensorProto.INT8 and not numpy_helper.to_array(t).any() for t in zeros)


class Branches(nn.Module):
    """Concatenation, pooling, an addition of two things that are no layers, and a layer that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.left = nn.Conv2d(1, 4, 3, padding=1)
        self.right = nn.Conv2d(1, 4, 5, padding=2)
        self.shared = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        both = torch.cat([self.left(x).relu(), self.right(x).relu()], dim=1)
        y = torch.max_pool2d(both, 2)
        y = self.shared(self.shared(y).relu()).relu() + y
        return self.head(nn.functional.adaptive_avg_pool2d(y, 1).flatten(1))


def test_concatenation_pooling_and_a_layer_used_twice(images: np.ndarray) -> None:
    torch.manual_seed(0)
    spec = spec_of()
    network = Branches().eval()
    program = program_from_network(network, spec)
    assert layer_names(program) == ["left", "right", "shared", "shared#2", "head"]
    model = int8(network, images, spec)
    assert len(quantized_layers(model)) == 5
    found = quantized_inputs(model)
    assert [i for name, i in found.items() if name.startswith(("Concat", "MaxPool"))] == [[False, False], [False]]
    assert [i for name, i in found.items() if name.startswith("Add")][1:] == [[False, True]]
    assert lint(model) == []
    with onnx_runner("onnxruntime", model.SerializeToString(), spec) as runner:
        found_logits = runner.infer_all(images)[LOGITS]
    with torch.inference_mode():
        pixels = torch.tensor((images / 255 - 0.13) / 0.31, dtype=torch.float32).unsqueeze(1)
        expected = network(pixels).numpy()
    assert np.abs(found_logits - expected).max() < 0.05 * np.abs(expected).max()


def test_torchvisions_resnet_is_quantised_whole(images: np.ndarray) -> None:
    torch.manual_seed(0)
    spec = spec_of()
    network = build_model("resnet18", 10)
    model = int8(network, images[:4], spec)
    expected = sum(isinstance(m, nn.Conv2d | nn.Linear) for m in network.modules())
    assert len(quantized_layers(model)) == expected == 21
    residual = [i for name, i in quantized_inputs(model).items() if name.startswith("Add")][1:]
    assert [sum(inputs) for inputs in residual] == [1] * 8
    assert lint(model) == []


def test_a_network_without_layers_is_refused(images: np.ndarray) -> None:
    class Sums(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x[:, :780].reshape(-1, 10, 78).sum(dim=2)

    network = nn.Sequential(nn.Flatten(), Sums()).eval()
    with pytest.raises(QuantizationError, match="no convolution and no linear layer; there is nothing to quantise"):
        int8(network, images, spec_of())


def test_the_percentile_leaves_the_outliers_out() -> None:
    settings = {"dtype": torch.int8, "quant_min": -128, "quant_max": 127, "qscheme": torch.per_tensor_symmetric}
    observer = PercentileObserver(eps=EPS, **settings)
    values = torch.linspace(-1, 1, 100_001)
    with_outlier = torch.cat([values, torch.tensor([50.0])])
    observer(with_outlier)
    observer(with_outlier)
    scale, zero = observer.calculate_qparams()
    assert float(zero) == 0
    assert float(scale) * 127.5 == pytest.approx(PERCENTILE / 100, abs=1e-3)
