"""`ExportedProgram` -> bytes of one ONNX file, and the lint of what came out.

Holds always: the opset asked for, our names and dynamic batch, one file, no local paths, standard operators only,
checked by onnx.checker and strict shape inference. The same program gives the same bytes.
"""

import sys
import warnings
from pathlib import Path

import onnx
import torch
from onnx import TensorProto
from torch.export import ExportedProgram

from hwr_export.errors import ExportError
from hwr_export.spec import BATCH_AXIS, INPUT, OUTPUTS, ModelSpec

DEFAULT_OPSET = 20
OPSETS = range(18, 27)  # torch writes 18 where less is asked for


def onnx_from_program(
    program: ExportedProgram, spec: ModelSpec, metadata: dict[str, str], opset: int = DEFAULT_OPSET
) -> bytes:
    """Convert a program to ONNX.

    Raises:
        ExportError: the conversion failed, or what came out is not what was asked for.
    """
    if opset not in OPSETS:
        raise ExportError(f"opset {opset} is not offered; choose {OPSETS.start} to {OPSETS.stop - 1}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            converted = torch.onnx.export(
                program,
                dynamo=True,
                opset_version=opset,
                input_names=[INPUT],
                output_names=list(OUTPUTS),
                dynamic_shapes={INPUT: {0: BATCH_AXIS}},  # names the axis; its range is the program's
                verbose=False,
            )
    except Exception as err:  # torch.onnx.OnnxExporterError has no stable place and wraps everything
        lines = [line.strip() for line in str(err).splitlines() if line.strip()]
        raise ExportError(f"torch.onnx cannot convert the program: {' '.join(lines[:3])[:400]}") from err
    assert converted is not None  # only an artifact file would make it None
    model = converted.model_proto
    strip_debug(model)
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, metadata)
    lint(model, spec, opset)
    return bytes(model.SerializeToString(deterministic=True))


def strip_debug(model: onnx.ModelProto) -> None:
    """Drop stack traces, documentation strings and per-node metadata: they carry paths of the exporting machine."""
    model.doc_string = ""
    graph = model.graph
    for group in (graph.node, graph.input, graph.output, graph.value_info, graph.initializer, [graph]):
        for item in group:
            item.doc_string = ""
            del item.metadata_props[:]


def lint(model: onnx.ModelProto, spec: ModelSpec, opset: int) -> None:
    """Check a model against the contract of `spec`.

    Raises:
        ExportError: the first thing that is not as promised.
    """
    found = {imported.domain or "ai.onnx": imported.version for imported in model.opset_import}
    if found.get("ai.onnx") != opset:
        raise ExportError(f"opset {opset} was asked for, the file has {found.get('ai.onnx')}")
    foreign = sorted({node.domain for node in model.graph.node} - {"", "ai.onnx"})
    if foreign or model.functions:
        raise ExportError(f"the file uses operators outside the standard: {', '.join(foreign) or 'model functions'}")
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in model.graph.initializer):
        raise ExportError("the file keeps weights in another file; one file was expected")
    height, width = spec.image_shape
    classes = len(spec.labels)
    _expect("inputs", _signature(model.graph.input), {INPUT: ("UINT8", (BATCH_AXIS, height, width))})
    _expect("outputs", _signature(model.graph.output), dict.fromkeys(OUTPUTS, ("FLOAT", (BATCH_AXIS, classes))))
    content = model.SerializeToString()
    for local in {str(Path.cwd()), str(Path.home()), sys.prefix, str(Path(torch.__file__).parent)}:
        if len(local) > 1 and local.encode() in content:
            raise ExportError(f"the file carries a path of this machine ({local})")
    try:
        onnx.checker.check_model(model, full_check=True)
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise ExportError(f"the file is not valid ONNX: {str(err).splitlines()[0]}") from err


def _signature(values: "list[onnx.ValueInfoProto]") -> dict[str, tuple[str, tuple[str | int, ...]]]:
    return {
        value.name: (
            TensorProto.DataType.Name(value.type.tensor_type.elem_type),
            tuple(d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim),
        )
        for value in values
    }


def _expect(what: str, found: object, expected: object) -> None:
    if found != expected:
        raise ExportError(f"the file's {what} are {found}, expected {expected}")
