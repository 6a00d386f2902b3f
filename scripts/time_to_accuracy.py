"""CPU seconds of a whole process until 99.0 % on MNIST's test split: our recipe beside a plain example script.

    python scripts/time_to_accuracy.py   # writes docs/figures/time-to-accuracy.json

Runs alternate, each in a process of its own; CPU time counts everything from the interpreter's start. Ours is one run
of a fixed recipe, evaluated afterwards; the plain script is stopped at the first epoch that reaches the mark.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "train" / "recipes" / "digits-fast.yaml"
MARK, SEEDS, PLAIN_EPOCHS = 0.99, 3, 8
THREADS = "1"


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def ours(seed: int, folder: Path) -> dict[str, float]:
    recipe = folder / f"{seed}.yaml"
    recipe.write_text(yaml.safe_dump(yaml.safe_load(RECIPE.read_text()) | {"seed": seed}))
    before = cpu_seconds()
    subprocess.run([sys.executable, "-m", "train", "fit", recipe, "-o", folder / f"{seed}"], cwd=ROOT, check=True)
    spent = cpu_seconds() - before
    done = subprocess.run(
        [sys.executable, "-m", "train", "evaluate", folder / f"{seed}", "--json"],
        cwd=ROOT, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return {"cpu_s": round(spent, 1), "test_accuracy": json.loads(done.stdout)["accuracy"]}


def plain(seed: int) -> dict[str, float]:
    sys.path.insert(0, str(ROOT))
    from hwr_export.datasets import find_mnist

    root = find_mnist().parent.parent
    command = [sys.executable, ROOT / "scripts" / "plain_mnist.py", root, str(PLAIN_EPOCHS), str(seed)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout:
            epoch, seconds, accuracy = line.split()
            print(f"plain script, seed {seed}, epoch {epoch}: {seconds} CPU s, {accuracy}", file=sys.stderr)
            if float(accuracy) >= MARK:
                break
        process.kill()
    return {"cpu_s": float(seconds), "test_accuracy": float(accuracy), "epochs": int(epoch)}


def main() -> None:
    os.environ["OMP_NUM_THREADS"] = THREADS
    runs = {"ours": [], "plain": []}
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(SEEDS):
            runs["ours"].append(ours(seed, Path(temporary)))
            runs["plain"].append(plain(seed))
    medians = {name: statistics.median(r["cpu_s"] for r in found) for name, found in runs.items()}
    report = {
        "schema": 1,
        "command": "python scripts/time_to_accuracy.py",
        "mark": MARK,
        "threads": int(THREADS),
        "recipe": RECIPE.name,
        "runs": runs,
        "median_cpu_s": medians,
        "times_faster": round(medians["plain"] / medians["ours"], 2),
        "reached": {name: all(r["test_accuracy"] >= MARK for r in found) for name, found in runs.items()},
    }
    (ROOT / "docs" / "figures" / "time-to-accuracy.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
