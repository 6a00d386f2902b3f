"""What can be read from a plan without a GPU.

The header's layout is undocumented; it was read off TensorRT-RTX 1.7.1 and is trusted for that version alone: magic
`vtrt`, file size as u64 at byte 16, version in bytes 24-27. The network's name stands in the body as text, and so do
the operations with the types of their tensors.
"""

import re
import struct
from dataclasses import dataclass

from hwr_export.errors import EngineError

RTX_MAGIC = b"vtrt"
HEADER_BYTES = 64
READABLE = "1.7.1."  # the only version whose body was looked into
_TENSOR = re.compile(rb'tensor=\{[^\n]*? name="([^"\n]*)"[^\n]*? type=(\w+)')
_LAYER = re.compile(rb'\n  (?:corrltn|fully_connected)=\{ name="([^"\n]*)" output=\{[^}\n]*\} input=\{"([^"\n]*)"')


@dataclass(frozen=True)
class PlanHeader:
    """`size_bytes` is what the plan says of itself; `version` as major.minor.patch.build."""

    size_bytes: int
    version: str


def read_rtx_header(data: bytes) -> PlanHeader:
    """Read the header of a TensorRT-RTX 1.7.1 plan.

    Raises:
        EngineError: not such a plan, or cut off.
    """
    if len(data) < HEADER_BYTES or data[:4] != RTX_MAGIC:
        raise EngineError(f"not a TensorRT-RTX plan: it starts with {data[:4]!r}, expected {RTX_MAGIC!r}")
    (size,) = struct.unpack_from("<Q", data, 16)
    if size != len(data):
        raise EngineError(f"the plan says it has {size:,} bytes and has {len(data):,}: it was cut off or extended")
    return PlanHeader(size, ".".join(str(b) for b in data[24:28]))


def check_rtx_plan(data: bytes, source_sha256: str) -> None:
    """Check a fresh plan: whole, and carrying the hash of the ONNX file that it was built from.

    Raises:
        EngineError: it is neither.
    """
    read_rtx_header(data)
    if source_sha256.encode() not in data:
        raise EngineError("the plan does not carry the hash of the ONNX file it was built from")


def read_rtx_layers(data: bytes) -> dict[str, str] | None:
    """Return each convolution and matrix product, by its ONNX name -> the type it reads: `int8`, `half`, `float`.

    Undocumented: None for a plan of another version than 1.7.1.
    """
    if not read_rtx_header(data).version.startswith(READABLE):
        return None
    types = dict(_TENSOR.findall(data))
    return {name.decode(): types.get(value, b"unknown").decode() for name, value in _LAYER.findall(data)}
