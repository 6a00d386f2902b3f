"""A release's file on a backend in a process of its own -> what starting costs: imports, load, first answer, memory.

`python -m hwr_export.cold RELEASE BACKEND PRECISION THREADS IMAGE` is that process. It does what `read` does on a
device, from an image file to a label, with modules compiled as pip leaves them; it imports nothing of ours before it
has looked at the clock, and prints one line of JSON.
"""

import json
import os
import sys
from pathlib import Path
from time import perf_counter, process_time
from typing import Any

KEYS = ("import_s", "load_s", "first_answer_s", "cpu_s", "peak_rss_mib")


def start_up(release: Path, backend: str, precision: str, threads: int, starts: int) -> dict[str, Any]:
    """Return the median of what `starts` fresh processes say, after one that finds and compiles what it needs.

    Raises:
        ReleaseError: the release has no goldens, which bring the image.
        RunnerError: one of them could not answer.
    """
    # Here, because the process that is measured would otherwise pay for what only this side needs.
    import statistics
    import subprocess
    import tempfile

    from hwr_export.errors import RunnerError

    # A device has compiled modules; a developer's Python may be told to keep none.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    found = []
    with tempfile.TemporaryDirectory() as temporary:
        image = Path(temporary) / "image.png"
        _write_image(release, image)
        command = [sys.executable, "-m", "hwr_export.cold", *map(str, (release, backend, precision, threads, image))]
        for _ in range(starts + 1):
            done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
            if done.returncode != 0:
                last = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
                raise RunnerError(f"{backend} with the {precision} file does not start in a process of its own: {last}")
            found.append(json.loads(done.stdout.splitlines()[-1]))
    return {"n": starts} | {key: round(statistics.median(one[key] for one in found[1:]), 6) for key in KEYS}


def _write_image(release: Path, path: Path) -> None:
    """Write a character as an image file, as a scanner leaves it: the first of the goldens that has ink."""
    from PIL import Image

    from hwr_export.errors import ReleaseError
    from hwr_export.glyph import normalize
    from hwr_export.goldens import Goldens
    from hwr_export.release import GOLDENS, Release

    opened = Release.open(release)
    entry = opened.entry(GOLDENS)
    if entry is None:
        raise ReleaseError(f"{release} has no {GOLDENS}; run `hwr-export onnx` again")
    images = Goldens.from_bytes(opened.read(entry), str(release / GOLDENS)).images
    inked = next(
        i for i in images if normalize(i, *opened.spec.image_shape) is not None
    )  # a checkerboard is among them
    Image.fromarray(inked).save(path)


def main(release: str, backend: str, precision: str, threads: str, image: str) -> dict[str, float]:
    """Load one file and read one image."""
    began = perf_counter()
    from hwr_export.glyph import load_grey, normalize
    from hwr_export.machine import peak_rss_mib
    from hwr_export.release import Release
    from hwr_export.runners.release import open_runner
    from hwr_export.spec import INPUT, PROBABILITIES

    opened = Release.open(Path(release))
    runner = open_runner(opened, backend, precision, int(threads))
    imported = perf_counter()
    with runner:
        loaded = perf_counter()
        crop = normalize(load_grey(Path(image)), *opened.spec.image_shape)
        assert crop is not None
        probabilities = runner.infer({INPUT: crop[None]})[PROBABILITIES]
        opened.spec.labels[int(probabilities.argmax())]
        ended = perf_counter()
    values = (imported - began, loaded - imported, ended - loaded, process_time(), peak_rss_mib())
    return dict(zip(KEYS, values, strict=True))


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:])))  # noqa: T201  the parent process reads it
