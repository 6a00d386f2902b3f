"""Snapshots of TensorRT's Python APIs -> tests/engine/trt_api.json: which of the names that our code uses each has.

python scripts/trt_api.py FOLDER      # holds tensorrt-10.3.0.json, tensorrt-11.4.0.json, tensorrt_rtx-1.7.1.json
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.engine.test_api import VERSIONS, used


def has_name(snapshot: dict[str, dict], name: str) -> bool:
    holder, _, member = name.partition(".")
    return holder in snapshot and (
        not member or member in snapshot[holder] or member in snapshot[holder].get("enum", ())
    )


def main(folder: Path) -> None:
    snapshots = {version: json.loads((folder / f"{version}.json").read_text()) for version in VERSIONS}
    rows = [
        f"  {json.dumps(name)}: {json.dumps({v: has_name(s, name) for v, s in snapshots.items()})}"
        for name in sorted(used())
    ]
    (Path(__file__).parent.parent / "tests" / "engine" / "trt_api.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
