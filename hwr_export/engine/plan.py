"""What can be read from a plan without a GPU.

The layout is undocumented. That of TensorRT-RTX was read off plans of 1.7.1 and is trusted for that version alone; of
TensorRT itself only the version is read, from the bytes that NVIDIA named (github.com/NVIDIA/TensorRT/issues/3073).
"""

import re
import struct
from dataclasses import dataclass

from hwr_export.errors import EngineError

RTX_MAGIC = b"vtrt"
TENSORRT_MAGIC = b"ftrt"
HEADER_BYTES = 64
READABLE = "1.7.1."  # the only version whose body was looked into
READ_BY = "undocumented means: the bytes and the text in a plan of TensorRT-RTX 1.7.1"
CAPABILITIES = ("sm75", "sm80", "sm86", "sm89", "sm120", "sm121")  # bit 0 on
WIDEST_FIRST = ("float", "half", "int8")
_TENSOR = re.compile(rb'tensor=\{[^\n]*? name="([^"\n]*)"[^\n]*? type=(\w+)')
_LAYER = re.compile(
    rb'\n  (?:corrltn|fully_connected)=\{ name="([^"\n]*?)(?: \[profile \d+\])?" output=\{[^}\n]*\} input=\{"([^"\n]*)"'
)
_SOURCE = re.compile(rb"\x40\0{7}([0-9a-f]{64})")  # a text of 64 bytes, after its length


@dataclass(frozen=True)
class PlanHeader:
    """`size_bytes` is what the plan says of itself; `version` as major.minor.patch.build."""

    size_bytes: int
    version: str
    targets: tuple[str, ...]


def rtx_version(data: bytes) -> str:
    """Return the version that a plan of TensorRT-RTX says of itself.

    Raises:
        EngineError: not such a plan.
    """
    magic = data[: len(RTX_MAGIC)]
    if magic == TENSORRT_MAGIC:
        version = f" {_version(data)}" if len(data) >= HEADER_BYTES else ""
        raise EngineError(
            f"not a TensorRT-RTX plan: it is one of TensorRT{version}, which can be looked into on the GPU that it was "
            "built on alone: inspect --gpu"
        )
    if len(data) < HEADER_BYTES or magic != RTX_MAGIC:
        raise EngineError(
            f"not a TensorRT-RTX plan: it has {len(data):,} bytes and starts with {magic!r}, expected {RTX_MAGIC!r} "
            f"and a header of {HEADER_BYTES} bytes"
        )
    return _version(data)


def read_rtx_header(data: bytes) -> PlanHeader:
    """Read the header of a TensorRT-RTX 1.7.1 plan: size as u64 at 16, version in bytes 24-27, capabilities at 32.

    Raises:
        EngineError: not such a plan, of another version, cut off, or damaged.
    """
    version = rtx_version(data)
    if not version.startswith(READABLE):
        raise EngineError(
            f"it is a plan of TensorRT-RTX {version}, and only those of {READABLE}x can be read without a GPU: "
            "inspect --gpu"
        )
    (size,) = struct.unpack_from("<Q", data, 16)
    if size != len(data):
        raise EngineError(
            f"the plan says it has {size:,} bytes and has {len(data):,}: it was cut off or extended; build it again"
        )
    (bits,) = struct.unpack_from("<I", data, 32)
    if data[28:32] != RTX_MAGIC or not 0 < bits < 1 << len(CAPABILITIES):
        raise EngineError(f"the plan's header is damaged at bytes 28-35: {data[28:36].hex(' ')}; build it again")
    return PlanHeader(size, version, tuple(c for i, c in enumerate(CAPABILITIES) if bits >> i & 1))


def read_source(data: bytes) -> str | None:
    """Return the sha256 of the ONNX file that a plan carries as its network's name; None where it carries none."""
    found = {match.decode() for match in _SOURCE.findall(data)}
    return found.pop() if len(found) == 1 else None


def check_rtx_plan(data: bytes, source_sha256: str) -> None:
    """Check a fresh plan: whole, as far as its version can be read, and carrying the hash of its ONNX file.

    Raises:
        EngineError: it is neither.
    """
    if rtx_version(data).startswith(READABLE):
        read_rtx_header(data)
    if source_sha256.encode() not in data:
        raise EngineError("the plan does not carry the hash of the ONNX file it was built from")


def read_rtx_layers(data: bytes) -> dict[str, str] | None:
    """Return each convolution and matrix product, by its ONNX name -> the type it reads: `int8`, `half`, `float`.

    With several profiles a layer is there once for each, and the widest type is told.
    Undocumented: None for a plan of another version than 1.7.1.
    """
    if not rtx_version(data).startswith(READABLE):
        return None
    types = dict(_TENSOR.findall(data))
    layers: dict[str, set[str]] = {}
    for name, value in _LAYER.findall(data):
        layers.setdefault(name.decode(), set()).add(types.get(value, b"unknown").decode())
    return {name: widest(found) for name, found in layers.items()}


def widest(types: set[str]) -> str:
    """Return the type that costs most: a layer counts as `int8` only where it is nothing else."""
    return next((t for t in WIDEST_FIRST if t in types), min(types, default="unknown"))


def _version(data: bytes) -> str:
    return ".".join(str(b) for b in data[24:28])
