"""Release -> nothing, or the link of its chain that is broken: checkpoint -> ONNX -> quantised -> plan -> reports.

Every file is what the manifest vouches for and was made from those that it ought to be, what documents say of others
by their hash is so, and the verdict is PASS. The program between checkpoint and ONNX is in no file: the checkpoint's
hash is in the ONNX file, and parity fails where it is another's.
"""

from collections.abc import Iterator
from typing import TypeVar

from pydantic import BaseModel, Field, ValidationError

from hwr_export.errors import BundleError, ReleaseError
from hwr_export.release import CHECKPOINT, FP16, FP32, GOLDENS, PARITY, Manifest, ManifestFile, Release, Role, onnx_path
from hwr_export.spec import Preprocessing, first_problem

# What a device installs, proves itself against and can show. The rest is for who makes releases.
DEVICE_ROLES: frozenset[Role] = frozenset(
    ("checkpoint", "onnx", "goldens", "build", "engine", "sidecar", "parity", "card", "acceptance")
)
_NEEDED: dict[str, Role] = {CHECKPOINT: "checkpoint", onnx_path(FP32): "onnx", GOLDENS: "goldens", PARITY: "parity"}
_AGAIN: dict[Role, str] = {
    "checkpoint": "onnx",
    "onnx": "onnx",
    "goldens": "onnx",
    "engine": "trt",
    "sidecar": "trt",
    "quantization": "quantize",
    "parity": "parity",
    "samples": "bench",
    "bench": "bench",
    "profile": "profile",
    "report": "report",
    "acceptance": "form calibrate",
}
_View = TypeVar("_View", bound=BaseModel)


class _Weights(BaseModel):
    file: str
    sha256: str


class _Checkpoint(BaseModel):
    """What `checkpoint.json` says that the manifest says too."""

    labels: str
    preprocessing: Preprocessing
    temperature: float
    reject_below: float
    weights: _Weights


class _File(BaseModel):
    path: str
    sha256: str


class _Cell(BaseModel):
    backend: str
    precision: str
    file: _File
    verdict: str


class _Parity(BaseModel):
    verdict: str
    cells: list[_Cell] = Field(max_length=1000)


class _Sidecar(BaseModel):
    path: str
    sha256: str
    source_onnx_sha256: str


def device_manifest(release: Release) -> Manifest:
    """Return the manifest of the part of a release that a device gets; links lead to files of that part alone."""
    kept = [f for f in release.manifest.files if f.role in DEVICE_ROLES]
    present = {f.sha256 for f in kept}
    files = [f.model_copy(update={"made_from": tuple(s for s in f.made_from if s in present)}) for f in kept]
    return release.manifest.model_copy(update={"files": tuple(sorted(files, key=lambda f: f.path))})


def require_chain(release: Release, whole: bool = False) -> None:
    """Refuse a release that no device should get.

    Args:
        whole: the checkpoint's weights must be there too, as they are until a release is packed.

    Raises:
        BundleError: names the link that is broken, or the cells whose verdict is not PASS.
    """
    _require_files(release, whole)
    try:
        for file in release.manifest.files:
            for source in _sources(release, file):
                if source.sha256 not in file.made_from:
                    raise _broken(release, source, file, "which was made from another file than is there")
        _require_checkpoint(release)
        for sidecar in release.by_role("sidecar"):
            _require_sidecar(release, sidecar)
        _require_verdict(release)
    except ReleaseError as err:
        raise BundleError(f"the chain of {release.path} is broken: {err}") from err


def _require_files(release: Release, whole: bool) -> None:
    """Refuse a release without the links that every chain has, or with one that is not what its manifest says."""
    here = release.path
    for path, role in _NEEDED.items():
        entry = release.entry(path)
        if entry is None or entry.role != role or (role != "onnx" and len(release.by_role(role)) != 1):
            raise BundleError(
                f"{here} has no {path} of its own, which the chain needs: run `hwr-export {_AGAIN[role]}`"
            )
    if whole and not release.by_role("weights"):
        raise BundleError(f"{here} has no weights, from which the chain starts: run `hwr-export onnx`")
    for status in release.verify():
        if not status.ok:
            raise BundleError(f"the chain of {here} is broken at {status.path}: {status.problem}")


def _broken(release: Release, source: ManifestFile, file: ManifestFile, how: str) -> BundleError:
    quantised = file.role == "onnx" and file.precision not in (FP32, FP16)
    again = "quantize" if quantised else _AGAIN.get(file.role, "onnx")
    return BundleError(
        f"the chain of {release.path} is broken between {source.path} and {file.path}, {how}: "
        f"run `hwr-export {again}` again"
    )


def _sources(release: Release, file: ManifestFile) -> Iterator[ManifestFile]:
    """Yield the files that one file must have been made from."""
    models = release.by_role("onnx")
    match file.role:
        case "checkpoint":
            yield from release.by_role("weights")
        case "goldens":
            yield from release.by_role("checkpoint")
        case "onnx":
            yield from release.by_role("checkpoint")
            if file.precision not in (FP32, FP16):
                yield release.onnx(FP32)
        case "quantization":
            yield from (model for model in models if model.precision not in (FP32, FP16))
        case "engine":
            yield release.onnx(file.precision or "")
        case "sidecar":
            yield _engine(release, file)
        case "parity":
            yield from (*release.by_role("goldens"), *models)
        case "acceptance":
            yield release.onnx(FP32)
        case "bench" | "samples" | "profile" | "report":
            yield from models


def _engine(release: Release, sidecar: ManifestFile) -> ManifestFile:
    engine = release.entry(sidecar.path.removesuffix(".json"))
    if engine is None or engine.role != "engine":
        raise BundleError(f"{release.path / sidecar.path} is of no plan of the release: run `hwr-export trt` again")
    return engine


def _require_checkpoint(release: Release) -> None:
    """Refuse a label set, preprocessing or threshold that is not the checkpoint's."""
    [entry] = release.by_role("checkpoint")
    checkpoint = _read(release, entry, _Checkpoint)
    spec = release.spec
    for what, ours, theirs in (
        ("label set", spec.labels, checkpoint.labels),
        ("preprocessing", spec.preprocessing, checkpoint.preprocessing),
        ("temperature", spec.temperature, checkpoint.temperature),
        ("rejection threshold", spec.reject_below, checkpoint.reject_below),
    ):
        if ours != theirs:
            raise BundleError(
                f"the chain of {release.path} is broken between {entry.path} and the manifest: the {what} is "
                f"{theirs!r} in one and {ours!r} in the other"
            )
    for weights in release.by_role("weights"):
        if (weights.path, weights.sha256) != (checkpoint.weights.file, checkpoint.weights.sha256):
            raise _broken(release, weights, entry, f"which tells of {checkpoint.weights.file}")


def _require_sidecar(release: Release, entry: ManifestFile) -> None:
    sidecar, engine = _read(release, entry, _Sidecar), _engine(release, entry)
    model = release.onnx(engine.precision or "")
    if (sidecar.path, sidecar.sha256) != (engine.path, engine.sha256):
        raise _broken(release, engine, entry, "which tells of another plan")
    if sidecar.source_onnx_sha256 != model.sha256:
        told = f"of which {entry.path} says that it was built from another file ({sidecar.source_onnx_sha256[:12]}…)"
        raise _broken(release, model, engine, told)


def _require_verdict(release: Release) -> None:
    [entry] = release.by_role("parity")
    parity = _read(release, entry, _Parity)
    failed = [f"{c.file.path} on {c.backend}: {c.verdict}" for c in parity.cells if c.verdict != "PASS"]
    if failed or parity.verdict != "PASS":
        said = "; ".join(failed) or f"over all {parity.verdict}"
        raise BundleError(f"only what passed is shipped, and in {release.path / PARITY} not everything did: {said}")
    judged = {(cell.file.path, cell.file.sha256) for cell in parity.cells}
    for model in release.by_role("onnx"):
        if (model.path, model.sha256) not in judged:
            raise _broken(release, model, entry, "which has no verdict on it")


def _read(release: Release, entry: ManifestFile, view: type[_View]) -> _View:
    try:
        return view.model_validate_json(release.read(entry))
    except ValidationError as err:
        raise BundleError(
            f"{release.path / entry.path} is no document this version can read: {first_problem(err)}"
        ) from err
