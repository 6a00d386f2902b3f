"""One change of a recipe at a time, judged by writers it did not learn from; the test split is not read.

python scripts/ablation.py [CHANGE...]    # all, or those named; trains what is missing in runs/ablation, writes
                                          # docs/figures/ablation.json

Fifteen epochs on two thirds of MNIST's training writers, errors on the other third: 20,108 images tell recipes apart
that the 6,000 of a validation part do not.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent
RUNS = ROOT / "runs" / "ablation"
OUT = ROOT / "docs" / "figures" / "ablation.json"

BASE: dict[str, Any] = {
    "schema": 1,
    # edge-m as it was until its stem was made for the machine (docs/latency.md): what the figures were measured on.
    "model": {"name": "edge", "config": {"channels": [16, 32, 48, 48]}},
    "data": {"name": "mnist", "validation_fraction": 1 / 3, "split_seed": 7},
    "epochs": 15,
    "learning_rate": 0.006,
    "compile": True,
}
LETTERS = {"name": "chars62", "classes": "ACEFHJKLMNPRTUVWXYacdefhjkmnprtuvwxy"}
LIGHT = {"rotate_deg": 7, "scale": 0.08, "shear": 0.1, "translate_px": 1.5, "elastic_px": 0.9}
CHANGES: dict[str, dict[str, Any]] = {
    "base (elastic 1.5 px)": {},
    "elastic 2.2 px": {"augment": {"elastic_px": 2.2}},
    "elastic 0.8 px": {"augment": {"elastic_px": 0.8}},
    "elastic 0.4 px": {"augment": {"elastic_px": 0.4}},
    "everything lighter": {"augment": LIGHT},
    "everything lighter, thickness 0.3": {"augment": LIGHT | {"thickness": 0.3}},
    "thickness 0.3": {"augment": {"thickness": 0.3}},
    "elastic 0.8 px, more rotation, scale and shear": {
        "augment": {"elastic_px": 0.8, "rotate_deg": 15, "scale": 0.15, "shear": 0.2}
    },
    "garbage 0.3 with letters": {"garbage_weight": 0.3, "garbage_data": LETTERS},
    "elastic 0.8 px, thickness 0.3, garbage 0.1 with letters": {
        "augment": {"elastic_px": 0.8, "thickness": 0.3},
        "garbage_weight": 0.1,
        "garbage_data": LETTERS,
    },
    "elastic 1 px, thickness 0.2": {"augment": {"elastic_px": 1.0, "thickness": 0.2}},
    "elastic 1 px, thickness 0.2, edge-m as it is since: stem 5 x 5 with stride 2, one projection less": {
        "model": {"name": "edge", "config": {"channels": [16, 32, 48, 48], "stem_stride": 2, "project": False}},
        "augment": {"elastic_px": 1.0, "thickness": 0.2},
    },
    # Teachers are runs above: no writer of the errors taught them either.
    "edge-s, elastic 0.8 px": {"model": {"name": "edge-s"}, "augment": {"elastic_px": 0.8}},
    "edge-s, elastic 0.8 px, two edge-m as teachers": {
        "model": {"name": "edge-s"},
        "augment": {"elastic_px": 0.8},
        "distil": {"teachers": ["runs/ablation/elastic-0-8-px", "runs/ablation/everything-lighter"]},
    },
}


def error(name: str, change: dict[str, Any]) -> dict[str, Any]:
    """Train one variant, or take the run that is there, and return its errors after the last epoch."""
    slug = "".join(c if c.isalnum() else "-" for c in name).strip("-")
    recipe, run = RUNS / f"{slug}.yaml", RUNS / slug
    RUNS.mkdir(parents=True, exist_ok=True)
    recipe.write_text(yaml.safe_dump(BASE | {"name": "ablation"} | change, sort_keys=False))
    # One thread: two of these side by side do not wait for each other.
    command = [sys.executable, "-m", "train", "fit", str(recipe), "-o", str(run), "--resume"]
    subprocess.run(command, cwd=ROOT, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    n = json.loads((run / "checkpoint.json").read_text())["data"]["validation"]["n"]
    return {"errors": round((1 - last["validation_accuracy"]) * n), "n": n}


def main() -> None:
    kept = {row["change"]: row for row in json.loads(OUT.read_text())["variants"]} if OUT.is_file() else {}
    for name in sys.argv[1:] or CHANGES:
        kept[name] = {"change": name, "recipe": CHANGES[name]} | error(name, CHANGES[name])
        kept[name]["error_percent"] = round(100 * kept[name]["errors"] / kept[name]["n"], 3)
    found = [kept[name] for name in CHANGES if name in kept]
    document = {"schema": 1, "command": "python scripts/ablation.py", "base": BASE, "variants": found}
    OUT.write_text(json.dumps(document, indent=2) + "\n")
    print(json.dumps(document))


if __name__ == "__main__":
    main()
