"""The reports of a release -> their documents, if they are about the files that the release holds now."""

import json
from typing import Any

from hwr_export.release import Release


def evidence(release: Release, path: str) -> dict[str, Any] | None:
    """Return a report (`parity.json`, `bench.json`); None where there is none, or one of other ONNX files."""
    entry = release.entry(path)
    models = {model.sha256 for model in release.by_role("onnx")}
    return None if entry is None or not models <= set(entry.made_from) else dict(json.loads(release.read(entry)))


def verdict_in(parity: dict[str, Any] | None, backend: str, precision: str) -> str | None:
    """Return what a parity report says of a file on a backend; None where it has not looked."""
    cells = parity["cells"] if parity else []
    return next((str(c["verdict"]) for c in cells if (c["backend"], c["precision"]) == (backend, precision)), None)
