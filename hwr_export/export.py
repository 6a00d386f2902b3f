"""Checkpoint, user's network or saved program -> a new release: ONNX file, goldens, provenance, model card.

The file is compared with the eager model on the goldens before anything is written: no release is born broken.
"""

import platform
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import hwr_export
from hwr_export.card import write_card
from hwr_export.checkpoint import (
    PROGRAM_SUFFIX,
    Checkpoint,
    CheckpointInfo,
    load_checkpoint,
    load_into,
    load_state,
    module_from_factory,
    program_module,
    weights_bytes,
    weights_file,
)
from hwr_export.datasets import LOADERS, load_dataset
from hwr_export.errors import CheckpointError, ExportError, UsageError
from hwr_export.files import json_bytes, sha256_bytes
from hwr_export.glyph import load_grey, normalize, resized
from hwr_export.goldens import SYNTHETIC, Goldens, pick_per_class, synthetic_images
from hwr_export.labels import check_labels
from hwr_export.models import count_parameters
from hwr_export.numbers import tolerance_from_goldens
from hwr_export.onnx_model import DEFAULT_OPSET, onnx_from_program
from hwr_export.program import network_in_half, program_from_network, refuse_train_mode
from hwr_export.release import (
    CHECKPOINT,
    FP16,
    FP32,
    GOLDENS,
    Release,
    new_release,
    onnx_path,
    refuse_foreign_directory,
)
from hwr_export.runners import installed as backend_installed
from hwr_export.runners import onnx_runner
from hwr_export.runners.eager import EagerRunner
from hwr_export.spec import LOGITS, PROBABILITIES, ModelSpec, Preprocessing

GOLDENS_TOTAL = 256


@dataclass(frozen=True)
class ExportConfig:
    """What to make of a checkpoint. `samples` names a dataset or a folder of images for the goldens; `half` adds a file
    that computes in float16."""

    name: str
    max_batch: int = 256
    opset: int = DEFAULT_OPSET
    samples: str = "mnist"
    data_root: Path | None = None
    half: bool = False


def checkpoint_from_factory(
    factory: str, weights: Path, labels: str, preprocessing: Preprocessing, name: str
) -> Checkpoint:
    """Make a checkpoint of a user's own network: `factory` is `package.module:callable` that returns it.

    Raises:
        CheckpointError: the factory or the weights cannot be used, or do not fit each other.
    """
    module = load_into(module_from_factory(factory), load_state(weights), str(weights))
    data = weights_bytes(module)
    info = CheckpointInfo(
        name=name,
        kind="module",
        architecture=factory,
        labels=check_labels(labels),
        preprocessing=preprocessing,
        parameters=count_parameters(module),
        weights=weights_file(data),
        versions=_versions(),
    )
    return Checkpoint(info, data, module)


def checkpoint_from_program(path: Path, labels: str, preprocessing: Preprocessing, name: str) -> Checkpoint:
    """Make a checkpoint of a saved ExportedProgram (`.pt2`) that takes pixels or normalised images.

    Raises:
        CheckpointError: missing or not a program.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise CheckpointError(f"there is no program {path} ({err.strerror})") from err
    module = program_module(path)
    info = CheckpointInfo(
        name=name,
        kind="program",
        architecture="ExportedProgram",
        labels=check_labels(labels),
        preprocessing=preprocessing,
        parameters=count_parameters(module),
        weights=weights_file(data, PROGRAM_SUFFIX),
        versions=_versions(),
    )
    return Checkpoint(info, data, module)


def export_onnx(
    checkpoint: Checkpoint, out: Path, config: ExportConfig, say: Callable[[str], None] = lambda _: None
) -> Release:
    """Export a checkpoint to a new release at `out`; one that is there is replaced, whole, at the end.

    Raises:
        ExportError: the network cannot be exported faithfully.
        UsageError: `out` is something else, or there are no sample images.
    """
    refuse_foreign_directory(out)
    info = checkpoint.info
    spec = info.spec(config.max_batch)
    refuse_train_mode(checkpoint.module)
    images, labels = sample_images(config.samples, spec, config.data_root)
    say(f"tracing {info.architecture} ({info.parameters:,} parameters), batch 1 to {spec.max_batch}")
    networks = {FP32: checkpoint.module} | ({FP16: network_in_half(checkpoint.module)} if config.half else {})
    info_bytes = info.to_json()
    models = {}
    for precision, network in networks.items():
        program = program_from_network(network, spec)
        say(f"converting to ONNX, {precision}, opset {config.opset}")
        models[precision] = onnx_from_program(program, spec, _metadata(info, info_bytes, spec), config.opset)
    say(f"recording the eager model's answers to {len(images)} goldens")
    goldens = record_goldens(checkpoint, spec, images, labels)
    for precision, model in models.items():
        say(f"comparing {onnx_path(precision)} with them: {check_against_goldens(model, spec, goldens, precision)}")

    with new_release(out, config.name, spec, config.opset) as release:
        weights = release.write(info.weights.file, checkpoint.weights, "weights")
        source = release.write(CHECKPOINT, info_bytes, "checkpoint", [weights.sha256])
        made_from = [source.sha256, weights.sha256]
        for precision, model in models.items():
            release.write(onnx_path(precision), model, "onnx", made_from, precision=precision)
        release.write(GOLDENS, goldens.to_bytes(), "goldens", made_from)
        write_card(release)
    return Release.open(out)


def sample_images(
    samples: str, spec: ModelSpec, data_root: Path | None
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    """Return the goldens' inputs, uint8 (N, H, W), and labels, int64 (N,), -1 where unknown or synthetic.

    Real images first (training split of a dataset, or a folder), then the synthetic ones.

    Raises:
        UsageError: `samples` is neither a dataset nor a folder of images.
        DataError: the dataset is not there.
    """
    height, width = spec.image_shape
    synthetic = synthetic_images(height, width)
    room = GOLDENS_TOTAL - len(synthetic)
    if samples in LOADERS:
        data = load_dataset(samples, "train", data_root)
        picked = pick_per_class(data.labels, room // len(data.label_set))
        crops = [data.images[i] for i in picked]
        if data.images.shape[1:] != (height, width):
            crops = [resized(crop, height, width) for crop in crops]
        known = [data.label_set[i] for i in data.labels[picked]]
        labels = [spec.labels.index(c) if c in spec.labels else SYNTHETIC for c in known]
    else:
        folder = Path(samples)
        if not folder.is_dir():
            raise UsageError(f"--samples takes a dataset ({', '.join(LOADERS)}) or a folder of images, got {samples}")
        found = sorted(p for p in folder.rglob("*") if p.suffix.lower() in {".png", ".jpg", ".jpeg", ".tif", ".pgm"})
        crops = [g for p in found[:room] if (g := normalize(load_grey(p), height, width)) is not None]
        labels = [SYNTHETIC] * len(crops)
    if len(crops) < 8:
        raise UsageError(f"{samples} gave {len(crops)} image(s); the goldens need at least 8 real ones")
    images = np.concatenate([np.stack(crops), synthetic])
    return images, np.asarray([*labels, *[SYNTHETIC] * len(synthetic)], dtype=np.int64)


def record_goldens(
    checkpoint: Checkpoint, spec: ModelSpec, images: npt.NDArray[np.uint8], labels: npt.NDArray[np.int64]
) -> Goldens:
    """Run the eager model, in float32 and in float64.

    Raises:
        ExportError: the outputs are not finite, or the network returns probabilities instead of logits.
    """
    with EagerRunner(checkpoint, spec) as eager:
        outputs = eager.infer_all(images)
        goldens = Goldens(
            images=images,
            labels=labels,
            preprocessed=eager.preprocess(images),
            logits=outputs[LOGITS].astype(np.float32),
            probabilities=outputs[PROBABILITIES].astype(np.float32),
            logits_float64=eager.logits_float64(images),
        )
    if not np.isfinite(goldens.logits).all():
        raise ExportError("the eager model returns NaN or infinity on real images; its weights are broken")
    if np.allclose(goldens.logits.sum(axis=1), 1, atol=1e-4) and (goldens.logits >= 0).all():
        raise ExportError(
            "the network returns probabilities (rows sum to 1); remove its last softmax, "
            "the export adds a calibrated one"
        )
    return goldens


def check_against_goldens(model: bytes, spec: ModelSpec, goldens: Goldens, precision: str = FP32) -> str:
    """Run the file where a runtime is installed and say how far it is from the eager model in float32.

    Raises:
        ExportError: further than the tolerance.
    """
    if not backend_installed("onnxruntime"):
        return "not done, onnxruntime is not installed; run `hwr-export parity` where it is"
    with onnx_runner("onnxruntime", model, spec) as runner:
        outputs = runner.infer_all(goldens.images)
    difference = float(np.abs(outputs[LOGITS] - goldens.logits).max())
    tolerance = tolerance_from_goldens(goldens, precision)
    if not difference <= tolerance.value:
        raise ExportError(
            f"the exported file is not the model: its logits differ by up to {difference:.3g} from the eager ones on "
            f"{len(goldens)} goldens, tolerance {tolerance.value:.3g} ({tolerance.reason}); no release was written"
        )
    return f"largest logit difference {difference:.2g}, tolerance {tolerance.value:.2g}"


def load_source(path: Path, labels: str, preprocessing: Preprocessing, name: str) -> Checkpoint:
    """Load what a path names: a `.pt2` program, or a checkpoint."""
    if path.suffix == PROGRAM_SUFFIX:
        return checkpoint_from_program(path, labels, preprocessing, name)
    return load_checkpoint(path)


def _metadata(info: CheckpointInfo, info_bytes: bytes, spec: ModelSpec) -> dict[str, str]:
    """What the ONNX file says about itself, for whoever meets it without its release."""
    return {
        "hwr.labels": spec.labels,
        "hwr.labels_sha256": spec.labels_sha256,
        "hwr.preprocessing": json_bytes(spec.preprocessing.model_dump()).decode().strip(),
        "hwr.temperature": repr(spec.temperature),
        "hwr.reject_below": repr(spec.reject_below),
        "hwr.max_batch": str(spec.max_batch),
        "hwr.checkpoint_sha256": sha256_bytes(info_bytes),
        "hwr.weights_sha256": info.weights.sha256,
        **{f"hwr.version.{name}": value for name, value in _versions().items()},
    }


def _versions() -> dict[str, str]:
    return {
        "hwr_export": hwr_export.__version__,
        "torch": str(torch.__version__),
        "onnx": version("onnx"),
        "onnxscript": version("onnxscript"),
        "python": platform.python_version(),
    }
