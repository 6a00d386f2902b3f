"""Looking into graphs changes nothing of what they compute."""

import numpy as np
import onnx
import pytest

from hwr_export.errors import RunnerError
from hwr_export.goldens import Goldens
from hwr_export.release import GOLDENS, Release
from hwr_export.runners import onnx_runner
from hwr_export.runners.eager import EagerRunner
from hwr_export.spec import LOGITS, OUTPUTS
from hwr_export.taps import (
    float_values,
    load_graph,
    pair_values,
    preprocessing_values,
    reference_outputs,
    weights_without_value,
    with_outputs,
)
from tests.faults import change, weights, with_integers


@pytest.fixture
def model(release: Release) -> bytes:
    return release.read(release.onnx("fp32"))


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_inner_values_are_those_of_the_eager_model(release: Release, model: bytes, mnist_test, backend: str) -> None:
    images = mnist_test.images[:8]
    graph = load_graph(model, "the file")
    with EagerRunner.from_release(release.path, release.spec) as eager:
        expected = eager.inner_values(images)
    names = [v.name for v in float_values(graph) if v.name in expected]
    assert len(names) > 20
    with onnx_runner(backend, with_outputs(graph, names), release.spec, outputs=[*OUTPUTS, *names]) as runner:
        found = runner.infer_all(images)
    with onnx_runner(backend, model, release.spec) as runner:
        np.testing.assert_allclose(found[LOGITS], runner.infer_all(images)[LOGITS], atol=1e-4)
    for name in names:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-3, err_msg=name)


def test_the_preprocessed_tensor_is_on_the_way_from_the_pixels(release: Release, model: bytes) -> None:
    goldens = Goldens.from_bytes(release.read(release.entry(GOLDENS)), GOLDENS)
    graph = load_graph(model, "the file")
    names = preprocessing_values(graph)
    last = reference_outputs(with_outputs(graph, names), goldens.images[:4], names)[names[-1]]
    np.testing.assert_allclose(last, goldens.preprocessed[:4], atol=1e-6)


def test_the_standards_evaluator_answers_like_the_engines(release: Release, model: bytes, mnist_test) -> None:
    images = mnist_test.images[:8]
    with onnx_runner("onnxruntime", model, release.spec) as runner:
        expected = runner.infer_all(images)
    found = reference_outputs(model, images)
    for name in OUTPUTS:
        np.testing.assert_allclose(found[name], expected[name], atol=1e-4)


def test_layers_are_called_as_their_weights(model: bytes) -> None:
    layers = {v.name: v.layer for v in float_values(load_graph(model, "the file")) if v.operator in ("Conv", "Gemm")}
    assert list(layers.values())[:2] == ["network.stem.0", "network.blocks.0.conv1"]
    assert layers[LOGITS] == "network.classifier"


def test_layers_of_a_quantised_graph_are_paired_with_their_own(release: Release, model: bytes, tmp_path) -> None:
    goldens = Goldens.from_bytes(release.read(release.entry(GOLDENS)), GOLDENS)
    integers = with_integers(model, goldens.images[:64], tmp_path)
    pairs = pair_values(load_graph(model, "a"), load_graph(integers, "b"))
    assert len(pairs) == 11
    for ours, theirs in pairs:
        assert theirs.layer == ours.layer
        assert theirs.weight_shape == ours.weight_shape


def test_weights_without_a_value_are_named(model: bytes) -> None:
    loaded = onnx.load_from_string(model)
    assert weights_without_value(loaded) == []
    change(weights(loaded)[1], lambda v: np.where(v == v.max(), np.nan, v))
    assert weights_without_value(loaded) == [weights(loaded)[1].name]


def test_what_is_no_graph_is_refused(model: bytes) -> None:
    with pytest.raises(RunnerError, match="the file is no valid ONNX file"):
        load_graph(model[:1000], "the file")
    with pytest.raises(RunnerError, match=r"onnx\.reference cannot run the model"):
        reference_outputs(model, np.zeros((1, 5), np.uint8))
