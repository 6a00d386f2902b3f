"""What a change of the network's shape does to its latency: two releases in one run, docs/figures/shape.json.

    git archive 2968b6a exported/digits | tar -x -C /tmp   # before edge-m's stem was made for the machine; say in its
                                                           # checkpoint.json: edge, channels [16, 32, 48, 48]
    python scripts/shape.py /tmp/exported/digits exported/digits

Every file of both that passed parity is timed in turns beside both eager models, one thread, as `bench` times.
"""

import random
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.bench import TIMED  # noqa: E402
from hwr_export.datasets import load_mnist  # noqa: E402
from hwr_export.evidence import evidence, verdict_in  # noqa: E402
from hwr_export.files import json_bytes, write_atomic  # noqa: E402
from hwr_export.latency import ratio, round_medians, spread, summary  # noqa: E402
from hwr_export.machine import Moment, machine_facts, watched  # noqa: E402
from hwr_export.measurement import measure  # noqa: E402
from hwr_export.release import PARITY, Release, is_for  # noqa: E402
from hwr_export.runners import EAGER, Runner  # noqa: E402
from hwr_export.runners.release import open_runner  # noqa: E402
from hwr_export.subjects import on_processors  # noqa: E402

BATCHES, SECONDS = (1, 32, 256), 1.0
BACKENDS = ("onnxruntime", "openvino")
NAMES = ("before", "after")


def subjects(release: Release) -> list[tuple[str, str]]:
    """Return backend and precision of the eager model and of every file that passed parity on a CPU."""
    parity = evidence(release, PARITY)
    files = [(b, str(f.precision)) for f in release.by_role("onnx") for b in BACKENDS if is_for(f.precision, b)]
    return [(EAGER, "fp32"), *(s for s in files if verdict_in(parity, *s) == "PASS")]


def main() -> None:
    releases = {name: Release.open(Path(path)) for name, path in zip(NAMES, sys.argv[1:], strict=True)}
    images = load_mnist("train").images
    cells, watches = list[dict[str, Any]](), list[dict[str, Any]]()
    start = Moment.now()
    with on_processors(1):
        for batch in BATCHES:
            with ExitStack() as stack:
                runners: dict[tuple[str, str, str], Runner] = {
                    (name, *subject): stack.enter_context(open_runner(release, *subject))
                    for name, release in releases.items()
                    for subject in subjects(release)
                }
                before = Moment.now()
                found, ticks = measure(list(runners.values()), images, batch, SECONDS, random.Random(0))
                watches.append(watched(start, before, Moment.now(), 1, spread(round_medians(ticks))))
            rounds = {key: round_medians(one.samples) for key, one in zip(runners, found, strict=True)}
            for key, one in zip(runners, found, strict=True):
                name, backend, precision = key
                eager = ratio(rounds[name, EAGER, "fp32"], rounds[key])
                cell = {"name": name, "backend": backend, "precision": precision, "batch": batch}
                cells.append(
                    cell
                    | summary(one.samples)
                    | {
                        "speedup_vs_eager": round(eager.value, 3),
                        "speedup_ci": [round(eager.low, 3), round(eager.high, 3)],
                    }
                )
                if name == "after" and (old := rounds.get(("before", backend, precision))) is not None:
                    change = ratio(rounds[key], old)
                    cells[-1]["of_before"] = round(change.value, 3)
                    cells[-1]["of_before_ci"] = [round(change.low, 3), round(change.high, 3)]
    document = {
        "schema": 1,
        "command": "python scripts/shape.py BEFORE exported/digits",
        "timed": TIMED,
        "machine": machine_facts(),
        "watches": watches,
        "manifests": {name: release.manifest_sha256 for name, release in releases.items()},
        "cells": cells,
    }
    write_atomic(ROOT / "docs" / "figures" / "shape.json", json_bytes(document))
    for c in cells:
        print(
            c["batch"],
            c["name"],
            c["backend"],
            c["precision"],
            c["p50_us"],
            c["speedup_vs_eager"],
            c.get("of_before", ""),
        )


if __name__ == "__main__":
    main()
