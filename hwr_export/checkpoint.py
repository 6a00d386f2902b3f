"""Checkpoint on disk <-> weights and everything known about them.

`checkpoint.json` is the checkpoint; it names its weights file (safetensors, or a `.pt2` program) and that file's
sha256. Weights files are named by content, so replacing the JSON is the one atomic step that makes a new checkpoint.
"""

import importlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from pydantic import Field, ValidationError
from safetensors import SafetensorError
from torch import nn

from hwr_export.errors import CheckpointError
from hwr_export.files import json_bytes, sha256_bytes, write_atomic
from hwr_export.models import build_model
from hwr_export.spec import LabelSet, ModelSpec, Preprocessing, Strict

CHECKPOINT_JSON = "checkpoint.json"
PROGRAM_SUFFIX = ".pt2"


class WeightsFile(Strict):
    """The file beside `checkpoint.json` that holds the numbers."""

    file: str = Field(pattern=r"^[A-Za-z0-9._-]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class CheckpointInfo(Strict):
    """`checkpoint.json`.

    `kind` says how the module is made: `architecture` (one of ours, by name), `module` (a user's own
    `package.module:factory`) or `program` (a saved ExportedProgram, whose weights file is the `.pt2`).
    """

    schema_version: Literal[1] = Field(1, alias="schema")
    name: str
    kind: Literal["architecture", "module", "program"]
    architecture: str
    config: dict[str, Any] = Field({})
    labels: LabelSet
    preprocessing: Preprocessing
    temperature: float = Field(1.0, gt=0)
    reject_below: float = Field(0.0, ge=0, le=1)
    parameters: int = Field(ge=0)
    weights: WeightsFile
    parents: dict[str, str] = Field({}, description="sha256 of the weights this one learned from, by role")
    recipe: dict[str, Any] | None = None
    data: dict[str, Any] | None = None
    seed: int | None = None
    activation_scales: list[float] | None = Field(None, description="of int8, learned with the weights, in graph order")
    metrics: dict[str, Any] = Field({})
    versions: dict[str, str] = Field({})

    def spec(self, max_batch: int = 256) -> ModelSpec:
        """Return what a reader must know of this model."""
        return ModelSpec(
            labels=self.labels,
            preprocessing=self.preprocessing,
            temperature=self.temperature,
            reject_below=self.reject_below,
            max_batch=max_batch,
            parameters=self.parameters,
        )

    def to_json(self) -> bytes:
        return json_bytes(self.model_dump(mode="json", by_alias=True))


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint: `info`, the exact bytes of its weights file, and the module in eval mode."""

    info: CheckpointInfo
    weights: bytes
    module: nn.Module


def weights_file(data: bytes, suffix: str = ".safetensors") -> WeightsFile:
    """Return the content-derived name and hash under which weights are stored."""
    digest = sha256_bytes(data)
    return WeightsFile(file=f"weights-{digest[:12]}{suffix}", sha256=digest)


def weights_bytes(module: nn.Module) -> bytes:
    """Serialise a module's state as safetensors, contiguous and on the CPU."""
    state = {k: v.detach().cpu().contiguous().clone() for k, v in module.state_dict().items()}
    return safetensors.torch.save(state)


def save_checkpoint(directory: Path, info: CheckpointInfo, weights: bytes) -> Path:
    """Write weights, then `checkpoint.json`, then drop weights that no JSON names any more."""
    write_atomic(directory / info.weights.file, weights)
    path = directory / CHECKPOINT_JSON
    write_atomic(path, info.to_json())
    for stale in directory.glob("weights-*"):
        if stale.name != info.weights.file:
            stale.unlink()
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Load a checkpoint from its JSON file or the directory that holds it.

    Raises:
        CheckpointError: missing, malformed, hash mismatch, or weights that do not fit the architecture.
    """
    json_path = path / CHECKPOINT_JSON if path.is_dir() else path
    info = read_info(json_path)
    weights_path = json_path.parent / info.weights.file
    try:
        weights = weights_path.read_bytes()
    except OSError as err:
        raise CheckpointError(f"{json_path} names the weights {weights_path}, which cannot be read: {err}") from err
    if sha256_bytes(weights) != info.weights.sha256:
        raise CheckpointError(
            f"{weights_path} is not the file that {json_path.name} was written with "
            f"(sha256 {sha256_bytes(weights)[:12]}…, expected {info.weights.sha256[:12]}…); train or copy it again"
        )
    return Checkpoint(info, weights, _build(info, weights, weights_path))


def read_info(json_path: Path) -> CheckpointInfo:
    """Read and validate `checkpoint.json`.

    Raises:
        CheckpointError: missing or malformed.
    """
    try:
        text = json_path.read_bytes()
    except OSError as err:
        raise CheckpointError(
            f"there is no checkpoint at {json_path.parent if json_path.name == CHECKPOINT_JSON else json_path}: "
            f"expected a directory with {CHECKPOINT_JSON}, as `python -m train fit` writes it ({err.strerror})"
        ) from err
    try:
        return CheckpointInfo.model_validate(json.loads(text))
    except (ValueError, ValidationError) as err:
        reason = _first_problem(err)
        raise CheckpointError(f"{json_path} is not a checkpoint this version can read: {reason}") from err


def load_state(path: Path) -> dict[str, torch.Tensor]:
    """Read a state dict from a `.safetensors`, `.pt` or `.pth` file (pickles with weights_only).

    Raises:
        CheckpointError: missing or not a state dict.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no weights file {path}")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as err:  # torch.load raises whatever its unpickler meets in a broken file
        first_line = (str(err).splitlines() or [""])[0][:160]
        raise CheckpointError(
            f"{path} cannot be read as weights ({type(err).__name__}: {first_line}); "
            "expected safetensors, or a state dict saved with torch.save"
        ) from err
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise CheckpointError(f"{path} holds {type(state).__name__}, expected a state dict of tensors")
    return state


def load_into(module: nn.Module, state: dict[str, torch.Tensor], source: str) -> nn.Module:
    """Load weights strictly and return the module in eval mode.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape; the message names the first of each.
    """
    own = module.state_dict()
    missing = sorted(own.keys() - state.keys())
    unexpected = sorted(state.keys() - own.keys())
    reshaped = [
        f"{k} is {tuple(state[k].shape)}, expected {tuple(own[k].shape)}"
        for k in sorted(own.keys() & state.keys())
        if own[k].shape != state[k].shape
    ]
    problems = [
        *(f"{k} is missing" for k in missing[:1]),
        *(f"{k} is not in the network" for k in unexpected[:1]),
        *reshaped[:1],
    ]
    if problems:
        total = len(missing) + len(unexpected) + len(reshaped)
        raise CheckpointError(
            f"the weights in {source} do not fit {type(module).__name__}: {'; '.join(problems)} "
            f"({total} tensor(s) in all); use the architecture and configuration they were trained with"
        )
    module.load_state_dict(state)
    return module.eval()


def module_from_factory(factory: str) -> nn.Module:
    """Call a user's `package.module:factory`, found on the path or in the working directory.

    Raises:
        CheckpointError: it cannot be imported, called, or returns no nn.Module.
    """
    module_name, _, attribute = factory.partition(":")
    if not module_name or not attribute:
        raise CheckpointError(f"--module takes package.module:factory, got {factory!r}")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        made = getattr(importlib.import_module(module_name), attribute)()
    except Exception as err:  # a user's factory may raise anything; its own words are the useful part
        raise CheckpointError(f"{factory} cannot be built: {type(err).__name__}: {err}") from err
    if not isinstance(made, nn.Module):
        raise CheckpointError(f"{factory} returned {type(made).__name__}, expected a torch.nn.Module")
    return made


def program_module(path: Path) -> nn.Module:
    """Load a saved ExportedProgram as a module.

    Raises:
        CheckpointError: not a `.pt2` file that this torch can read.
    """
    try:
        module = torch.export.load(path).module()
    except Exception as err:  # torch.export.load raises whatever its archive reader meets
        first_line = (str(err).splitlines() or [""])[0][:160]
        raise CheckpointError(
            f"{path} is not an ExportedProgram that torch {torch.__version__} can load "
            f"({type(err).__name__}: {first_line})"
        ) from err
    # A loaded program has no modes (its .eval() raises); what its operators were traced with is checked at export.
    for part in module.modules():
        part.training = False
    return module


def _build(info: CheckpointInfo, weights: bytes, path: Path) -> nn.Module:
    if info.kind == "program":
        return program_module(path)
    if info.kind == "module":
        module = module_from_factory(info.architecture)
    else:
        module = build_model(info.architecture, len(info.labels), info.config)
    try:
        state = safetensors.torch.load(weights)
    except (SafetensorError, ValueError) as err:
        raise CheckpointError(f"{path} is not a safetensors file: {err}") from err
    return load_into(module, state, str(path))


def _first_problem(err: ValueError) -> str:
    if isinstance(err, ValidationError):
        first = err.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'document'}: {first['msg']}"
    return str(err)
