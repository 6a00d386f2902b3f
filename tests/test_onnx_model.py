import io
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from hwr_export.errors import ExportError
from hwr_export.models import build_model
from hwr_export.onnx_model import lint, onnx_from_program
from hwr_export.program import program_from_network
from hwr_export.release import Release
from hwr_export.runners import onnx_runner
from hwr_export.spec import INPUT, LOGITS, PROBABILITIES, ModelSpec, Preprocessing

SPEC = ModelSpec(labels="0123456789", preprocessing=Preprocessing(), max_batch=16, parameters=1)


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    torch.manual_seed(0)
    return program_from_network(build_model("edge", 10, {"channels": [4, 4, 4, 4]}), SPEC)


@pytest.fixture
def model(release: Release) -> onnx.ModelProto:
    return onnx.load_from_string(release.read(release.onnx("fp32")))


def test_the_contract_of_the_graph(model: onnx.ModelProto) -> None:
    (image,) = model.graph.input
    assert image.name == "image"
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [d.dim_param or d.dim_value for d in image.type.tensor_type.shape.dim] == ["batch", 28, 28]
    assert [o.name for o in model.graph.output] == ["logits", "probabilities"]
    assert {i.domain: i.version for i in model.opset_import} == {"": 20}


def test_metadata_tells_what_the_file_is(model: onnx.ModelProto, release: Release) -> None:
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties["hwr.labels"] == "0123456789"
    assert properties["hwr.max_batch"] == "16"
    assert properties["hwr.checkpoint_sha256"] == release.entry("checkpoint.json").sha256
    assert {"hwr.version.torch", "hwr.version.onnx", "hwr.version.hwr_export"} <= properties.keys()


def test_no_path_or_trace_of_this_machine(release: Release) -> None:
    content = release.read(release.onnx("fp32"))
    for trace in (str(Path.home()).encode(), str(Path.cwd()).encode(), b"stack_trace", b'.py"', b"site-packages"):
        assert trace not in content


def test_the_same_program_gives_the_same_bytes(program: torch.export.ExportedProgram) -> None:
    assert onnx_from_program(program, SPEC, {"k": "v"}) == onnx_from_program(program, SPEC, {"k": "v"})


@pytest.mark.parametrize("opset", [18, 26])
def test_the_opset_is_the_one_asked_for(program: torch.export.ExportedProgram, opset: int) -> None:
    model = onnx.load_from_string(onnx_from_program(program, SPEC, {}, opset))
    assert model.opset_import[0].version == opset


@pytest.mark.parametrize("opset", [13, 99])
def test_opsets_that_torch_would_change_silently_are_refused(program, opset: int) -> None:
    with pytest.raises(ExportError, match=f"opset {opset} is not offered; choose 18 to 26"):
        onnx_from_program(program, SPEC, {}, opset)


def test_the_file_computes_what_the_program_does(program: torch.export.ExportedProgram) -> None:
    image = np.random.default_rng(0).integers(0, 256, (7, 28, 28)).astype(np.uint8)
    with torch.inference_mode():
        logits, probabilities = program.module()(torch.tensor(image))
    with onnx_runner("onnxruntime", onnx_from_program(program, SPEC, {}), SPEC) as runner:
        found = runner.infer({INPUT: image})
    np.testing.assert_allclose(found[LOGITS], logits.numpy(), atol=1e-5)
    np.testing.assert_allclose(found[PROBABILITIES], probabilities.numpy(), atol=1e-6)


def rename_input(model: onnx.ModelProto) -> None:
    model.graph.input[0].name = "x"


def fix_batch(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 1


def foreign_node(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.microsoft"


def external(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].data_location = onnx.TensorProto.EXTERNAL


def local_path(model: onnx.ModelProto) -> None:
    model.graph.node[0].name = str(Path.cwd() / "model.py")


def unknown_tensor(model: onnx.ModelProto) -> None:
    model.graph.node[2].input[0] = "nowhere"


def wrong_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 18


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (rename_input, "inputs are"),
        (fix_batch, "inputs are"),
        (foreign_node, "com.microsoft"),
        (external, "one file was expected"),
        (local_path, "path of this machine"),
        (unknown_tensor, "not valid ONNX"),
        (wrong_opset, "opset 20 was asked for, the file has 18"),
    ],
)
def test_lint_finds_what_is_not_as_promised(model: onnx.ModelProto, release: Release, break_it, message: str) -> None:
    lint(model, release.spec, 20)
    break_it(model)
    with pytest.raises(ExportError, match=message):
        lint(model, release.spec, 20)


def test_the_file_is_readable_by_onnx_alone(release: Release) -> None:
    model = onnx.load(io.BytesIO(release.read(release.onnx("fp32"))))
    onnx.checker.check_model(model, full_check=True)
