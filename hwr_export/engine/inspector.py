"""Plan + the GPU it was built for -> its layers, as the product's own engine inspector tells them.

Written against the names of the API and the JSON that NVIDIA documents for 10 and 11; not executed on a GPU yet.
"""

import json
import re
from typing import Any

from hwr_export.engine.plan import widest
from hwr_export.engine.products import Product
from hwr_export.errors import EngineError
from hwr_export.runners.trt_log import use_logger

INSPECTOR = "the engine inspector"
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
# As the inspector words them, e.g. "Row major linear FP32" or "Int8"; the first that fits.
_TYPES = {"int8": "int8", "fp8": "fp8", "bf16": "bfloat16", "bfloat16": "bfloat16", "fp16": "half", "half": "half"}
_TYPES |= {"fp32": "float", "float": "float", "int32": "int32", "int64": "int64", "bool": "bool", "uint8": "uint8"}
_TYPE_KEYS = ("Format/Datatype", "DataType", "Format")  # 10: the first, 11: the others


def inspect_layers(product: Product, plan: bytes) -> list[dict[str, Any]]:
    """Return the plan's layers: `name`, `kind`, `onnx` (the nodes it was made from), `input_type`, `output_type`.

    Raises:
        EngineError: no GPU, a plan for another one, or of another version; with the product's own words.
    """
    trt = product.module
    logger = use_logger(trt)
    runtime = trt.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise EngineError(f"{product.name} {product.version} cannot load the plan here: {logger.gist()}")
    inspector = engine.create_engine_inspector()
    text = inspector.get_engine_information(trt.LayerInformationFormat.JSON)
    try:
        layers = json.loads(text)["Layers"]
        return [_row(layer) for layer in layers]
    except (ValueError, TypeError, KeyError, AttributeError) as err:
        raise EngineError(
            f"the engine inspector of {product.name} {product.version} answered in a form that was not expected "
            f"({type(err).__name__}: {err}): {text[:200]!r}"
        ) from err


def input_types(rows: list[dict[str, Any]]) -> dict[str, str]:
    """Return each ONNX node -> the widest type that a layer made from it reads."""
    found: dict[str, set[str]] = {}
    for row in rows:
        for name in row["onnx"]:
            found.setdefault(name, set()).add(row["input_type"])
    return {name: widest(types) for name, types in found.items()}


def _row(layer: dict[str, Any] | str) -> dict[str, Any]:
    if isinstance(layer, str):  # a plan that was built without detail
        return {"name": layer, "kind": "", "onnx": [], "input_type": "unknown", "output_type": "unknown"}
    return {
        "name": layer["Name"],
        "kind": layer.get("LayerType", ""),
        "onnx": _ONNX.findall(layer.get("Metadata", "")),
        "input_type": _type(layer.get("Inputs", [])),
        "output_type": _type(layer.get("Outputs", [])),
    }


def _type(tensors: list[dict[str, Any]]) -> str:
    """Return the type of the first tensor, which is the data that a layer reads or writes."""
    words = " ".join(str(tensors[0].get(key, "")) for key in _TYPE_KEYS).lower() if tensors else ""
    return next((kind for word, kind in _TYPES.items() if re.search(rf"\b{word}\b", words)), "unknown")
