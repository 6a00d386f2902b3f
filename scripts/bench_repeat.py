"""Does `bench` repeat itself, and does it see a slowdown: docs/figures/bench-repeat.json.

    python scripts/bench_repeat.py [RUNS]      # 5 if not said; about two minutes a run

`hwr-export bench` is run as a whole process RUNS times on a copy of exported/digits, and once more with a backend made
10 % slower. Every pair of unchanged runs is compared, and the slowed run with each of them.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.compare import TOLERANCE, compare, load_bench  # noqa: E402
from hwr_export.files import json_bytes, write_atomic  # noqa: E402

SLOWED, BY = "onnxruntime", 0.10
BENCH = ("--threads", "1", "--starts", "0", "--backend", "onnxruntime", "--backend", "openvino", "--seconds", "2")


def run(release: Path, slowed: bool) -> dict[str, Any]:
    """Measure in a process of its own; return its `bench.json`."""
    command = ["-m", "hwr_export", "bench"] if not slowed else [__file__, "slowed"]
    subprocess.run([sys.executable, *command, str(release), *BENCH], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return load_bench(release)


def bench_slowed() -> None:
    """Be `hwr-export bench` with every call on ONNX Runtime followed by a tenth of the time that it took."""
    from hwr_export.cli import main
    from hwr_export.runners import Arrays
    from hwr_export.runners.onnxruntime import OnnxRuntimeRunner

    whole = OnnxRuntimeRunner._infer  # noqa: SLF001  what is slowed is the call itself

    def slower(self: OnnxRuntimeRunner, inputs: Arrays) -> Arrays:
        start = time.perf_counter_ns()
        outputs = whole(self, inputs)
        until = start + (time.perf_counter_ns() - start) * (1 + BY)
        while time.perf_counter_ns() < until:
            pass
        return outputs

    OnnxRuntimeRunner._infer = slower  # type: ignore[method-assign]  # noqa: SLF001
    sys.argv = ["hwr-export", "bench", *sys.argv[2:]]
    main()


def main() -> None:
    n = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    with tempfile.TemporaryDirectory() as folder:
        release = Path(folder) / "digits"
        shutil.copytree(ROOT / "exported" / "digits", release)
        runs = [run(release, slowed=False) for _ in range(n)]
        slow = run(release, slowed=True)
    pairs = [cell for new, old in combinations(runs, 2) for cell in compare(new, old)["cells"]]
    against_slow = [cell for old in runs for cell in compare(slow, old)["cells"]]
    injected = Counter(c["answer"] for c in against_slow if c["backend"] == SLOWED)
    unchanged = Counter(c["answer"] for c in against_slow if c["backend"] != SLOWED)
    answers = Counter(c["answer"] for c in pairs)
    document = {
        "schema": 1,
        "command": f"python scripts/bench_repeat.py {n}",
        "runs": n,
        "tolerance": TOLERANCE,
        "unchanged": {"cells": len(pairs), "answers": dict(answers), "same": round(answers["SAME"] / len(pairs), 4)},
        "slowed": {"backend": SLOWED, "by": BY, "answers": dict(injected), "other_backends": dict(unchanged)},
        "noisy": [[noise for w in r["watches"] for noise in w["noisy"]] for r in (*runs, slow)],
        "not_same": [c for c in pairs if c["answer"] != "SAME"],
    }
    write_atomic(ROOT / "docs" / "figures" / "bench-repeat.json", json_bytes(document))
    print(json.dumps({k: document[k] for k in ("unchanged", "slowed")}))


if __name__ == "__main__":
    bench_slowed() if sys.argv[1:2] == ["slowed"] else main()
