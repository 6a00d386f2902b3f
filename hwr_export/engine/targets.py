"""The machines a plan may run on, by name: compute capability, the product that builds its plan, the source of both.

Hardware names stand for a compute capability, which is what plans are built for and named after. What TensorRT-RTX is
said to build was built by it here, without a GPU; a vendor's figures are quoted, not measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hwr_export.errors import UsageError

ProductName = Literal["tensorrt_rtx", "tensorrt"]
RTX: ProductName = "tensorrt_rtx"
TENSORRT: ProductName = "tensorrt"
NATIVE = "native"

ALL = ("fp32", "fp16", "int8")
BUILT = "built here by TensorRT-RTX 1.7.1"
RTX_MATRIX = f"{BUILT}; docs.nvidia.com/deeplearning/tensorrt-rtx, Support Matrix"
TENSORRT_MATRIX = "docs.nvidia.com/deeplearning/tensorrt, Support Matrix"
JETPACK = "developer.nvidia.com/embedded/jetpack; docs.nvidia.com/deeplearning/tensorrt/11.4.1, Migrating on Jetson"
JETPACK_6 = "JetPack 6.2: TensorRT 10.3, CUDA 12.6"
ORIN_VERSIONS = f"{JETPACK_6}; JetPack 7.2.2 on: TensorRT 11.4.1"


@dataclass(frozen=True)
class Target:
    """A machine. `precisions` are those of our files whose plans it takes; `peak` is the vendor's figure."""

    name: str
    capability: str  # as `sm86`; `native` for the GPU of the machine that builds
    device: str
    product: ProductName
    precisions: tuple[str, ...] = ALL
    peak: str = ""
    versions: str = "TensorRT-RTX 1.7"
    tensorrt: str = "10.3"  # the oldest that may be met there, where the product is TensorRT
    source: str = RTX_MATRIX

    @property
    def label(self) -> str:
        """Return the name with the capability that it stands for."""
        return self.name if self.name == self.capability else f"{self.name} ({self.capability})"


TARGETS: dict[str, Target] = {
    t.name: t
    for t in (
        Target(
            "sm75", "sm75", "Turing: T4, RTX 20", RTX, ("fp16",)
        ),  # no fp32 GEMM, which ends our fp32 and int8 files
        Target("sm80", "sm80", "Ampere: A100, A30", RTX, source=BUILT),
        Target("sm86", "sm86", "Ampere: RTX 30, A10", RTX),
        Target("sm87", "sm87", "Ampere: Jetson Orin", TENSORRT, versions=ORIN_VERSIONS, source=TENSORRT_MATRIX),
        Target("sm89", "sm89", "Ada: RTX 40, L4", RTX),
        Target("sm90", "sm90", "Hopper: H100, H200", TENSORRT, versions="TensorRT 10.3 on", source=TENSORRT_MATRIX),
        Target("sm100", "sm100", "Blackwell: B200", TENSORRT, versions="TensorRT 10.8 on", source=TENSORRT_MATRIX),
        Target("sm110", "sm110", "Blackwell: Jetson Thor", TENSORRT, versions="JetPack 7", source=TENSORRT_MATRIX),
        Target("sm120", "sm120", "Blackwell: RTX 50", RTX),
        Target("sm121", "sm121", "Blackwell: GB10", RTX, source=BUILT),
        Target("t4", "sm75", "T4", RTX, ("fp16",), "130 TOPS int8"),
        Target("rtx-3090", "sm86", "GeForce RTX 3090", RTX, peak="284 TOPS int8"),
        Target("rtx-4090", "sm89", "GeForce RTX 4090", RTX, peak="661 TOPS int8"),
        Target("rtx-5090", "sm120", "GeForce RTX 5090", RTX, peak="3352 TOPS fp4, sparse"),
        Target("h100", "sm90", "H100 SXM", TENSORRT, ALL, "1979 TOPS int8", "TensorRT 10.3 on", source=TENSORRT_MATRIX),
        Target(
            "jetson-orin-nano",
            "sm87",
            "Jetson Orin Nano 8 GB",
            TENSORRT,
            peak="40 TOPS int8, sparse; 67 in Super mode",
            versions=f"{JETPACK_6}; TensorRT 11.4.1 names AGX Orin and Thor alone",
            source=JETPACK,
        ),
        Target(
            "jetson-agx-orin",
            "sm87",
            "Jetson AGX Orin 64 GB",
            TENSORRT,
            peak="275 TOPS int8, sparse, DLA included",
            versions=ORIN_VERSIONS,
            source=JETPACK,
        ),
        Target(
            "jetson-thor",
            "sm110",
            "Jetson Thor T5000",
            TENSORRT,
            peak="2070 TFLOPS fp4, sparse",
            versions="JetPack 7.0: CUDA 13.0; JetPack 7.2.2 on: TensorRT 11.4.1",
            source=JETPACK,
        ),
        Target(
            NATIVE,
            NATIVE,
            "the GPU of the machine that builds",
            TENSORRT,
            ALL,
            "",
            "TensorRT 10.3 on",
            source="whatever is there",
        ),
    )
}
RTX_CAPABILITIES = tuple(t.name for t in TARGETS.values() if t.product == RTX and t.name == t.capability)


def find_targets(names: Sequence[str]) -> list[Target]:
    """Return the rows of these names.

    Raises:
        UsageError: a name that is not in the table; the message lists those that are.
    """
    for name in names:
        if name not in TARGETS:
            raise UsageError(f"there is no target {name!r}; there are: {', '.join(TARGETS)}")
    return [TARGETS[name] for name in names]


def wants_native(asked: bool, names: Sequence[str], product: str | None) -> bool:
    """Return whether plans are for the GPU of this machine: asked for, or all that the product builds for.

    Raises:
        UsageError: for this one and for others at once.
    """
    native = asked or NATIVE in names or (product == TENSORRT and not names)
    if native and set(names) - {NATIVE}:
        raise UsageError(
            f"--native builds for the GPU of this machine alone, not for {', '.join(names)} too; run twice"
        )
    return native


def refusal(target: Target, product: ProductName) -> str:
    """Return why a product cannot build for a target from elsewhere and what to do; empty where it can."""
    there = "copy the release to that device and build on it: hwr-export trt RELEASE --native"
    if product == RTX and target.product != RTX:
        return f"tensorrt_rtx does not build for {target.label}, only for {', '.join(RTX_CAPABILITIES)}; {there}"
    if product == TENSORRT and target.name != NATIVE:
        return f"tensorrt builds for no other GPU than that of the machine it runs on, not for {target.label}; {there}"
    return ""


def targets_document() -> dict[str, Any]:
    """Return the table as `hwr-export targets --json` prints it."""
    return {
        "schema": 1,
        "targets": [
            {
                "name": t.name,
                "compute_capability": t.capability,
                "device": t.device,
                "product": t.product,
                "built": "anywhere, without a GPU" if t.product == RTX else "on the device",
                "precisions": list(t.precisions),
                "peak": t.peak,
                "versions": t.versions,
                "source": t.source,
            }
            for t in TARGETS.values()
        ],
    }
