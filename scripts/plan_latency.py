"""Release with plans that run on this machine's GPU -> latency of each, interleaved, on the goldens' images; one JSON.

    python scripts/plan_latency.py RELEASE PRODUCT

Timed is what `hwr-export bench` times: uint8 images in host memory to labels and confidences. Needs no torch.
"""

import random
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from hwr_export.engine.here import RunnablePlan, plans_here
from hwr_export.errors import HwrError, ReleaseError, RunnerError
from hwr_export.files import json_bytes
from hwr_export.goldens import SYNTHETIC, Goldens
from hwr_export.latency import Samples, summary
from hwr_export.measurement import measure
from hwr_export.release import GOLDENS, Release

BATCHES = (1, 32, 256)
SECONDS = 1.0


def latencies(release: Release, product: str) -> dict[str, Any]:
    """Return a cell for each plan and batch.

    Raises:
        HwrError: no plan of the product runs here, or one that should is not the file the manifest vouches for.
    """
    plans, not_run = plans_here(release, [product])
    if broken := [found.problem for found in plans if found.problem]:
        raise RunnerError("; ".join(broken))
    entry = release.entry(GOLDENS)
    if entry is None:
        raise ReleaseError(f"{release.path} has no {GOLDENS}; run `hwr-export onnx` again")
    goldens = Goldens.from_bytes(release.read(entry), GOLDENS)
    images = goldens.images[goldens.labels != SYNTHETIC]
    cells = []
    with ExitStack() as stack:
        for found in plans:
            stack.enter_context(found.runner)
        for batch in BATCHES:
            able = [found for found in plans if batch <= found.runner.spec.max_batch]
            if able:
                measured, _ = measure([found.runner for found in able], images, batch, SECONDS, random.Random(0))
                cells += [_cell(found, batch, one.samples) for found, one in zip(able, measured, strict=True)]
    return {"schema": 1, "cells": cells, "not_run": not_run}


def _cell(found: RunnablePlan, batch: int, samples: Samples) -> dict[str, Any]:
    head = {"path": found.plan.path, "backend": found.runner.backend, "precision": found.model.precision}
    return head | {"batch": batch} | summary(samples)


if __name__ == "__main__":
    try:
        document = latencies(Release.open(Path(sys.argv[1])), sys.argv[2])
    except HwrError as err:
        sys.exit(f"Error: {err}")
    sys.stdout.write(json_bytes(document).decode())
