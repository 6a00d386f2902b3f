"""What a build can be told, whatever the product: the shapes to prepare for, and how much room and effort it gets.

Precision is no option: it is in the ONNX file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Literal

from hwr_export.engine.targets import RTX, ProductName
from hwr_export.errors import UsageError
from hwr_export.spec import INPUT, ModelSpec

LogLevel = Literal["error", "warning", "info", "verbose"]
LEVELS = 6  # builder optimisation levels, from 0

# Tried with the builder of TensorRT-RTX 1.7.1 on a machine without a GPU; docs/tensorrt.md has the figures.
NOT_WITH_RTX = {
    "optimization_level": "plans of all levels from 0 to 5 came out the same, since it chooses kernels when a plan is "
    "loaded",
    "version_compatible": "the flag needs a lean runtime that TensorRT-RTX does not ship; build with the version that "
    "will run the plan",
    "hardware_compatible": "it calls this unsupported; name all the GPUs with --target and add --together",
    "strip_weights": "its builder calls the GPU for this and fails without one",
    "refittable": "its builder calls the GPU for this and fails without one",
    "timing_cache": "it times nothing while it builds, and calls its timing cache a no-op",
}

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]  # input -> its (min, opt, max) shapes


@dataclass(frozen=True)
class BuildOptions:
    """How to build; None leaves the product its own default.

    `timing_cache` is what an earlier build returned, or empty to begin one. `log_level` is the least of the builder's
    own words that go to stderr; its errors are in the exception in any case.
    """

    workspace_mib: int = 1024
    optimization_level: int | None = None
    version_compatible: bool = False
    hardware_compatible: bool = False
    strip_weights: bool = False
    refittable: bool = False
    timing_cache: bytes | None = None
    log_level: LogLevel | None = None

    def document(self) -> dict[str, int | bool | None]:
        """Return what a sidecar tells: all that decides what is in the plan."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("timing_cache", "log_level")}


DEFAULT_OPTIONS = BuildOptions()


def require_options(options: BuildOptions, product: ProductName) -> None:
    """Refuse what a product cannot do, or would take without doing it.

    Raises:
        UsageError: with the reason.
    """
    if options.workspace_mib < 1:
        raise UsageError(f"--workspace must be 1 MiB or more, got {options.workspace_mib}")
    if options.optimization_level not in (None, *range(LEVELS)):
        raise UsageError(f"--optimization-level must be 0 to {LEVELS - 1}, got {options.optimization_level}")
    if product != RTX:
        return
    for name, reason in NOT_WITH_RTX.items():
        if getattr(options, name) != getattr(DEFAULT_OPTIONS, name):
            raise UsageError(f"--{name.replace('_', '-')} does not go with tensorrt_rtx: {reason}")


def batch_ranges(opt_batches: Sequence[int], max_batch: int) -> list[tuple[int, int, int]]:
    """Return (min, opt, max) of each profile: together they take every batch up to `max_batch`, each by one alone.

    A profile ends at the batch that it is optimal for and the next one begins there; the last goes on to `max_batch`.

    Raises:
        UsageError: a batch to optimise for that is not within 1 to `max_batch`.
    """
    opts = sorted(set(opt_batches)) or [1]
    for opt in opts:
        if not 1 <= opt <= max_batch:
            raise UsageError(f"--opt-batch must be 1 to {max_batch}, got {opt}")
    starts = [1, *(opt + 1 for opt in opts[:-1])]
    ends = [*opts[:-1], max_batch]
    return list(zip(starts, opts, ends, strict=True))


def release_profiles(
    spec: ModelSpec, opt_batches: Sequence[int] = (), max_batch: int | None = None
) -> tuple[Profile, ...]:
    """Return the profiles of a release's graph, within the range of batches that it was exported for.

    Args:
        opt_batches: one profile is made for each; none stands for 1.
        max_batch: the largest batch that the plan shall take, where that is less than the graph's.

    Raises:
        UsageError: batches that the graph does not take.
    """
    largest = spec.max_batch if max_batch is None else max_batch
    if not 1 <= largest <= spec.max_batch:
        raise UsageError(
            f"--max-batch must be 1 to {spec.max_batch}, which the graph was exported for, got {largest}; "
            "export with a larger --max-batch"
        )
    ranges = batch_ranges(opt_batches, largest)
    return tuple(
        {INPUT: ((a, *spec.image_shape), (b, *spec.image_shape), (c, *spec.image_shape))} for a, b, c in ranges
    )
