"""Release + training images -> `model.int8.onnx`, `model.int8-cpu.onnx` and `quantization.json`, which says how.

Calibration sees training images alone. How ranges are found, and which layers stay in float under a budget, is chosen
on other training images; the test part is opened only to refuse what is also in it.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from torch.export import ExportedProgram

from hwr_export.calibration import CALIBRATION, HELD_OUT, OBSERVERS, TRAINED, Observer, Samples, draw_samples
from hwr_export.card import write_card
from hwr_export.checkpoint import load_checkpoint, read_info
from hwr_export.errors import QuantizationError, UsageError
from hwr_export.files import json_bytes, write_atomic
from hwr_export.onnx_model import lint as lint_contract
from hwr_export.onnx_model import onnx_from_program
from hwr_export.program import program_from_network
from hwr_export.qdq import compact, name_layers, quantized_layers
from hwr_export.qdq_lint import lint
from hwr_export.quantizer import int8_program, layer_names
from hwr_export.release import (
    CHECKPOINT,
    FP32,
    INT8,
    INT8_CPU,
    QUANTIZATION,
    Release,
    is_for,
    onnx_path,
)
from hwr_export.rounding import Rounding
from hwr_export.runners import installed
from hwr_export.sensitivity import (
    Choice,
    Cost,
    Judge,
    as_rows,
    fewest_float_layers,
    layer_costs,
    sensitivity_png,
)
from hwr_export.u8s8 import u8s8_from_onnx

SCHEMES = {
    INT8: "weights int8 of 7 bits per output channel, activations int8 per tensor, all symmetric; biases float32",
    INT8_CPU: "weights int8 of 7 bits per output channel, symmetric; activations uint8 per tensor with zero point; "
    "biases int32",
}
# A file is measured on the first of these that it is made for. ONNX Runtime runs the S8S8 file rightly, but slowly.
JUDGES = ("openvino", "onnxruntime")

Say = Callable[[str], None]
Images = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class QuantizeConfig:
    """`budget_pt`: points of held-out accuracy that may be lost, None for no limit; `observer` None tries all; `data`
    None takes what the model was trained on; `plot` is where a picture of the layers' costs goes."""

    budget_pt: float | None = None
    observer: Observer | None = None
    data: str | None = None
    data_root: Path | None = None
    images: int = CALIBRATION
    held_out: int = HELD_OUT
    plot: Path | None = None


def quantize(release: Release, config: QuantizeConfig, say: Say = lambda _: None) -> dict[str, Any]:
    """Add both int8 files to a release and return the report of `quantize --json`.

    Raises:
        UsageError: a runtime is not installed, or the images asked for are not there.
        DataError: the data is missing, or a calibration image is also in the evaluation set.
        ReleaseError: a file of the release is missing or changed.
        QuantizationError: the network cannot be quantised, or not within the budget.
    """
    release.require_writable()
    if not installed("onnxruntime"):
        raise UsageError("quantising needs onnxruntime to measure what it did: pip install 'hwr-export[cpu]'")
    if config.plot is not None and find_spec("matplotlib") is None:
        raise UsageError("--plot needs matplotlib: pip install 'hwr-export[train]'")
    float_file = release.onnx(FP32)
    source = release.read(float_file)
    info = read_info(release.path / CHECKPOINT)
    samples = draw_samples(release.spec, info.recipe, config.data, config.data_root, config.images, config.held_out)
    say(
        f"calibrating with {len(samples.calibration)} training images of {samples.calibration.name}, choosing on "
        f"{len(samples.held_out):,} others of its {samples.held_out.split} part"
    )
    program, model = _program(release), onnx.load_model_from_string(source)
    name_layers(model, layer_names(program))
    metadata = {p.key: p.value for p in model.metadata_props}
    images = samples.calibration.images
    rounding = Rounding(model, images)
    makers = {
        INT8: _int8(release, program, metadata, images, info.activation_scales or ()),
        INT8_CPU: _int8_cpu(model, metadata, images),
    }
    observers = [config.observer] if config.observer else list(OBSERVERS)
    learned = [TRAINED] if info.activation_scales and not config.observer else []
    tried = {INT8: [*learned, *observers], INT8_CPU: observers}
    made = [
        _quantized(release, name, source, makers[name], tried[name], rounding, samples, config, say) for name in makers
    ]
    if config.plot is not None:
        first = made[0].report
        write_atomic(config.plot, sensitivity_png(first["layers"], f"{release.manifest.name}: {first['path']}"))
    labels = release.spec.labels
    report = {
        "schema": 1,
        "calibration": samples.calibration.description(labels) | {"hashes": sorted(samples.calibration.hashes)},
        "held_out": samples.held_out.description(labels),
        "shared_with_test_left_out": samples.shared,
        "budget_pt": config.budget_pt,
        "files": [one.report for one in made],
    }
    with release.change() as change:
        origin = [float_file.sha256, *(f.sha256 for f in release.manifest.files if f.path == CHECKPOINT)]
        for one in made:
            change.write(onnx_path(one.precision), one.model, "onnx", origin, precision=one.precision)
        files = [f.sha256 for f in change.manifest.files if f.path in {onnx_path(p) for p in makers}]
        change.write(QUANTIZATION, json_bytes(report), "quantization", files)
        write_card(change)
    return summary(report)


def summary(report: dict[str, Any]) -> dict[str, Any]:
    """Return the part of `quantization.json` that `quantize --json` prints."""
    calibration = {key: report["calibration"][key] for key in ("n", "split", "sha256")}
    keys = ("path", "scheme", "size_bytes", "ratio_to_fp32")
    return {
        "schema": 1,
        "files": [
            {**{k: f[k] for k in keys}, "calibration": calibration, "float_layers": f["float_layers"]}
            for f in report["files"]
        ],
    }


@dataclass(frozen=True)
class _Made:
    precision: str
    model: bytes
    report: dict[str, Any]


Make = Callable[[Observer], onnx.ModelProto]


def _program(release: Release) -> ExportedProgram:
    """Trace the network that the release carries, having checked that it is the one it vouches for."""
    checkpoint = load_checkpoint(release.path)
    for path in (CHECKPOINT, checkpoint.info.weights.file):
        entry = release.entry(path)
        if entry is None:
            raise QuantizationError(f"{release.path} vouches for no {path}; run `hwr-export onnx` again")
        release.read(entry)
    return program_from_network(checkpoint.module, release.spec)


def _int8(
    release: Release, program: ExportedProgram, metadata: dict[str, str], images: Images, scales: Sequence[float]
) -> Make:
    """Prepare the TensorRT and OpenVINO file: from the network, whose batch norm is folded before it is rounded."""

    def make(observer: Observer) -> onnx.ModelProto:
        quantized = int8_program(program, release.spec, images, observer, scales)
        data = onnx_from_program(quantized, release.spec, metadata, release.manifest.opset)
        model = onnx.load_model_from_string(data)
        name_layers(model, layer_names(program))
        return model

    return make


def _int8_cpu(model: onnx.ModelProto, metadata: dict[str, str], images: Images) -> Make:
    """Prepare the file for ONNX Runtime on the CPU: from the float file."""

    def make(observer: Observer) -> onnx.ModelProto:
        quantized = u8s8_from_onnx(model, images, observer)
        onnx.helper.set_model_props(quantized, metadata)
        return quantized

    return make


def _quantized(
    release: Release,
    precision: str,
    source: bytes,
    make: Make,
    observers: Sequence[Observer],
    rounding: Rounding,
    samples: Samples,
    config: QuantizeConfig,
    say: Say,
) -> _Made:
    """Make one file: choose the observer, rank the layers, keep within the budget, and check what came out."""
    backend = next(b for b in JUDGES if is_for(precision, b) and installed(b))
    held_out = samples.held_out
    judge = Judge(backend, release.spec, held_out.images, held_out.labels, source)
    path = onnx_path(precision)
    tried: dict[str, Cost] = {}
    models: dict[str, onnx.ModelProto] = {}
    for observer in observers:
        model = make(observer)
        rounding.apply(model)
        tried[observer], models[observer] = judge.cost(_bytes(model)), model
        say(f"{path}: {observer} flips {tried[observer].flips} of {tried[observer].n:,} answers on {backend}")
    chosen = min(tried, key=lambda name: tried[name].order)
    whole, model = tried[chosen], models[chosen]
    ranked = layer_costs(model, judge, whole, lambda text: say(f"{path}: {text}"))
    choice = Choice((), model, whole)
    if config.budget_pt is not None:
        choice = fewest_float_layers(model, ranked, judge, whole, config.budget_pt)
    data = _finished(release, precision, choice.model)
    cost = judge.cost(data)
    report = {
        "path": path,
        "scheme": SCHEMES[precision],
        "size_bytes": len(data),
        "ratio_to_fp32": round(len(data) / len(source), 4),
        "quantized_layers": len(quantized_layers(choice.model)),
        "float_layers": list(choice.float_layers),
        "observer": chosen,
        "observers": {name: asdict(one) for name, one in tried.items()},
        "judged_on": backend,
        "float_accuracy": judge.accuracy,
        "cost": asdict(cost),
        "layers": as_rows(ranked),
    }
    return _Made(precision, data, report)


def _finished(release: Release, precision: str, model: onnx.ModelProto) -> bytes:
    """Return the file as it is shipped, having checked that it keeps the contract of every release.

    Raises:
        QuantizationError: TensorRT would refuse a file that is made for it.
        ExportError: another promise is broken.
    """
    compact(model)
    lint_contract(model, release.spec, release.manifest.opset)
    findings = lint(model) if precision == INT8 else []
    if findings:
        raise QuantizationError(
            f"TensorRT would refuse {onnx_path(precision)}: {findings[0].node}: {findings[0].sentence}"
        )
    return _bytes(model)


def _bytes(model: onnx.ModelProto) -> bytes:
    return bytes(model.SerializeToString(deterministic=True))
