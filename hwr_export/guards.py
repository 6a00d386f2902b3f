"""What no statistic excuses: batches or repeats that answer differently, a file that is not what it should be."""

import numpy as np
import numpy.typing as npt

from hwr_export.errors import RunnerError
from hwr_export.release import CHECKPOINT, Release
from hwr_export.runners import Runner
from hwr_export.spec import INPUT, LOGITS


def unpinned_facts(metadata: dict[str, str], release: Release) -> tuple[list[str], str | None]:
    """Compare what a file says of itself with the release: its label order and its checkpoint, by their hashes.

    Returns:
        What does not agree, and the fault's name; nothing of a file that does not say.
    """
    spec, checkpoint = release.spec, release.entry(CHECKPOINT)
    labels, made_from = metadata.get("hwr.labels_sha256"), metadata.get("hwr.checkpoint_sha256")
    if labels and labels != spec.labels_sha256:
        told = metadata.get("hwr.labels", "another label set")
        return [f"the file answers in the order {told!r}, the release's label set is {spec.labels!r}"], "swapped labels"
    if made_from and checkpoint and made_from != checkpoint.sha256:
        theirs, ours = made_from[:12], checkpoint.sha256[:12]
        return [f"the file was made from the checkpoint {theirs}…, the release's is {ours}…"], "stale file"
    return [], None


def try_batches(runner: Runner, images: npt.NDArray[np.uint8], tolerance: float) -> tuple[dict[str, str], list[str]]:
    """Run batches of 1, 2, 7 and max, which must answer alike and again, and max + 1, which must be refused.

    Args:
        images: uint8 (N, H, W), repeated as needed.
        tolerance: how far logits may be from those of the same images one by one.
    """
    largest = runner.spec.max_batch
    pool = np.resize(images, (largest + 1, *images.shape[1:]))
    expected = np.concatenate([runner.infer({INPUT: pool[i : i + 1]})[LOGITS] for i in range(largest)])
    results, problems = {}, []
    for size in sorted({1, 2, min(7, largest), largest}):
        found, again = (runner.infer({INPUT: pool[:size]})[LOGITS] for _ in range(2))
        difference = float(np.abs(found - expected[:size]).max()) if found.shape == expected[:size].shape else np.inf
        if not difference <= tolerance:
            results[str(size)] = f"differs by {difference:.3g} from the same images one by one"
        elif not np.array_equal(found, again):
            results[str(size)] = f"differs by {np.abs(found - again).max():.3g} from itself when repeated"
        else:
            results[str(size)] = "ok"
            continue
        problems.append(f"a batch of {size} {results[str(size)]}")
    try:
        runner.infer({INPUT: pool})
    except RunnerError:
        results[str(largest + 1)] = "refused"
    else:
        results[str(largest + 1)] = "not refused"
        problems.append(f"a batch of {largest + 1} was not refused")
    return results, problems
