"""Three seeds of a recipe: train each, evaluate each once on the test split, report median and range.

python scripts/reach.py fit RECIPE SEED     # runs/RECIPE-SEED, resumable; its CPU minutes are kept beside it
python scripts/reach.py report RECIPE...    # evaluates, writes docs/figures/reach-RECIPE.json
"""

import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs"
SEEDS = (0, 1, 2)  # those of them that were trained are reported


def garbage(evaluation: dict[str, Any]) -> float:
    """Return the share of the synthetic garbage, bars apart, accepted where 3 % of the characters are rejected."""
    kinds = [k for name, k in evaluation["garbage"]["kinds"].items() if k["synthetic"] and name != "bars"]
    return sum(k["accepted"]["3 %"] * k["n"] for k in kinds) / sum(k["n"] for k in kinds)


def accepted(evaluation: dict[str, Any], kind: str) -> float | None:
    found = evaluation["garbage"]["kinds"].get(kind)
    return None if found is None else 100 * found["accepted"]["3 %"]


# What is compared over seeds: key of the evaluation -> how it is told.
MEASURES = {
    "error_percent": lambda e: e["error_percent"],
    "ece_percent": lambda e: 100 * e["ece"],
    "ece_before_temperature_percent": lambda e: 100 * e["ece_before_temperature"],
    "error_at_3_percent_rejected_percent": lambda e: 100 * e["error_at_rejection"]["3 %"],
    "garbage_accepted_at_3_percent_rejected_percent": lambda e: 100 * garbage(e),
    "bars_accepted_percent": lambda e: accepted(e, "bars"),
    "letters_unlike_digits_accepted_percent": lambda e: accepted(e, "letters unlike digits"),
    "top_3_percent": lambda e: None if e.get("top3_accuracy") is None else 100 * e["top3_accuracy"],
    "merged_percent": lambda e: None if e.get("merged_accuracy") is None else 100 * e["merged_accuracy"],
}


def fit(name: str, seed: int) -> None:
    """Train one seed in a process of its own and add what it cost to `runs/NAME-SEED.cost`."""
    recipe = yaml.safe_load((ROOT / "train" / "recipes" / f"{name}.yaml").read_text()) | {"seed": seed}
    path = RUNS / f"{name}-{seed}.yaml"
    RUNS.mkdir(exist_ok=True)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False))
    command = [sys.executable, "-m", "train", "fit", str(path), "-o", str(RUNS / f"{name}-{seed}"), "--resume"]
    done = subprocess.run(command, cwd=ROOT, check=False)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    with (RUNS / f"{name}-{seed}.cost").open("a") as file:
        file.write(f"{(usage.ru_utime + usage.ru_stime) / 60:.2f}\n")
    sys.exit(done.returncode)


def is_finished(run: Path) -> bool:
    if not (run / "metrics.jsonl").is_file():
        return False
    epochs = yaml.safe_load((run / "recipe.yaml").read_text())["epochs"]
    return len((run / "metrics.jsonl").read_text().splitlines()) == epochs


def report(name: str) -> dict[str, Any]:
    seeds = []
    for seed in SEEDS:
        run = RUNS / f"{name}-{seed}"
        if not is_finished(run):
            continue
        # Paths stay relative: the evaluation names the run, not the machine.
        command = [sys.executable, "-m", "train", "evaluate", str(run.relative_to(ROOT)), "--json"]
        done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
        found = json.loads(done.stdout)
        cost = RUNS / f"{name}-{seed}.cost"  # missing where a part of the training was killed: its cost is not known
        minutes = round(sum(map(float, cost.read_text().split())), 1) if cost.is_file() else None
        measures = {k: None if (v := of(found)) is None else round(v, 4) for k, of in MEASURES.items()}
        seeds.append({"seed": seed, "cpu_minutes": minutes, **measures})
        parameters = found["parameters"]
    summary = {}
    for measure in ("cpu_minutes", *MEASURES):
        values = [s[measure] for s in seeds if s[measure] is not None]
        if values:
            summary[measure] = {"median": statistics.median(values), "range": [min(values), max(values)]}
    document = {
        "schema": 1,
        "commands": [f"python scripts/reach.py fit {name} SEED", f"python scripts/reach.py report {name}"],
        "recipe": f"train/recipes/{name}.yaml",
        "parameters": parameters,
        "seeds": seeds,
        "summary": summary,
    }
    (ROOT / "docs" / "figures" / f"reach-{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    return document


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["fit", name, seed]:
            fit(name, int(seed))
        case ["report", *names] if names:
            for name in names:
                print(json.dumps(report(name)["summary"], indent=2))
        case _:
            sys.exit(__doc__)
