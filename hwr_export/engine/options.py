"""What a build can be told, whatever the product: the shapes to prepare for, and how much room and effort it gets.

Precision is no option: it is in the ONNX file.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hwr_export.errors import UsageError
from hwr_export.spec import INPUT, ModelSpec

Shape = tuple[int, ...]
Profile = Mapping[str, tuple[Shape, Shape, Shape]]  # input -> its (min, opt, max) shapes


@dataclass(frozen=True)
class BuildOptions:
    """Sizes are in MiB."""

    workspace_mib: int = 1024


DEFAULT_OPTIONS = BuildOptions()


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
