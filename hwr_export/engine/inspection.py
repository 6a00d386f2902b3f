"""A plan on disk -> what it is, whether it is whole, and whether it is the one that its sidecar tells of.

Without a GPU it reads what TensorRT-RTX 1.7.1 leaves in the file; with one it asks the product.
"""

import json
from pathlib import Path
from typing import Any

from hwr_export.engine.inspector import INSPECTOR, inspect_layers
from hwr_export.engine.plan import READ_BY, TENSORRT_MAGIC, read_rtx_header, read_rtx_layers, read_source, rtx_version
from hwr_export.engine.products import DEFAULT_TARGETS, load_product
from hwr_export.engine.targets import NATIVE, RTX, TENSORRT
from hwr_export.errors import EngineError, UsageError
from hwr_export.files import sha256_bytes

TOLD = ("product", "product_version", "targets", "size_bytes", "sha256", "source_onnx_sha256")


def inspect_plan(path: Path, on_gpu: bool = False) -> dict[str, Any]:
    """Return what the plan is; `problems` names where its sidecar tells of another.

    Raises:
        UsageError: the file cannot be read.
        EngineError: no plan, cut off or damaged, of another product or version than can be read; or no GPU for it.
    """
    try:
        data = path.read_bytes()
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}") from err
    try:
        found = _of_gpu(data) if on_gpu else _of_rtx(data)
    except EngineError as err:
        raise EngineError(f"{path}: {err}") from err
    found |= {"size_bytes": len(data), "sha256": sha256_bytes(data), "source_onnx_sha256": read_source(data)}
    sidecar = _sidecar(path)
    problems = [
        f"its sidecar says {key} {sidecar[key]}, the plan {found[key]}"
        for key in TOLD
        if sidecar is not None and found.get(key) is not None and sidecar.get(key) != found[key]
    ]
    return {"schema": 1, "path": str(path), **found, "sidecar": sidecar is not None, "problems": problems}


def _of_rtx(data: bytes) -> dict[str, Any]:
    header = read_rtx_header(data)
    return {
        "product": RTX,
        "product_version": header.version,
        "targets": list(header.targets),
        "read_by": READ_BY,
        "layers": [{"name": name, "input_type": kind} for name, kind in (read_rtx_layers(data) or {}).items()],
    }


def _of_gpu(data: bytes) -> dict[str, Any]:
    if data[: len(TENSORRT_MAGIC)] == TENSORRT_MAGIC:
        product = load_product(TENSORRT, [NATIVE])
    else:
        rtx_version(data)  # whatever it is
        product = load_product(RTX, DEFAULT_TARGETS)
    return {
        "product": product.name,
        "product_version": product.version,
        "targets": None,
        "read_by": INSPECTOR,
        "layers": inspect_layers(product, data),
    }


def _sidecar(path: Path) -> dict[str, Any] | None:
    """Return the JSON document that `trt` writes beside a plan, if it is there."""
    beside = path.with_name(f"{path.name}.json")
    if not beside.exists():
        return None
    try:
        document = json.loads(beside.read_text())
    except (OSError, ValueError) as err:
        raise UsageError(f"{beside} cannot be read: {err}; build the plan again") from err
    if not isinstance(document, dict):
        raise UsageError(f"{beside} is no sidecar: expected a JSON object; build the plan again")
    return document
