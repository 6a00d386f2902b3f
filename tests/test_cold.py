"""What a start costs is measured on the way that a reader takes, and a start that fails is no measurement."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from hwr_export.cold import KEYS, start_up
from hwr_export.errors import ReleaseError, RunnerError
from hwr_export.files import json_bytes
from hwr_export.goldens import Goldens
from hwr_export.release import GOLDENS, MANIFEST, Release

SAY = "\nimport sys; print(*sorted(sys.modules), file=sys.stderr)"
READ = "from pathlib import Path; from hwr_export.reader import read_images; from hwr_export.release import Release\n"


def modules(code: str) -> set[str]:
    done = subprocess.run([sys.executable, "-c", code + SAY], capture_output=True, text=True, check=True)
    return set(done.stderr.split())


def test_a_start_reads_an_image_as_a_reader_does(release: Release, tmp_path: Path) -> None:
    image = tmp_path / "image.png"
    entry = release.entry(GOLDENS)
    assert entry is not None
    Image.fromarray(Goldens.from_bytes(release.read(entry), GOLDENS).images[0]).save(image)
    arguments = (str(release.path), "onnxruntime", "fp32", "1", str(image))
    started = modules(f"from hwr_export.cold import main\nmain{arguments!r}")
    reading = modules(f"{READ}read_images(Release.open(Path({arguments[0]!r})), [Path({arguments[-1]!r})])")
    own = {"hwr_export.cold", "hwr_export.machine", "hwr_export.runners.release"}
    assert started - reading <= own | {"platform", "resource"}
    assert reading - started == {"hwr_export.reader"}


def test_starts_are_medians_and_leave_nothing_uncompiled(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = start_up(release.path, "onnxruntime", "fp32", 1, 2)
    assert found["n"] == 2
    assert set(found) == {"n", *KEYS}
    assert all(found[key] > 0 for key in KEYS)
    assert found["import_s"] + found["load_s"] + found["first_answer_s"] < 60


def test_a_start_that_fails_is_said(release: Release) -> None:
    with pytest.raises(RunnerError, match=r"onnxruntime with the int4 file does not start .*: .*has no int4 model"):
        start_up(release.path, "onnxruntime", "int4", 1, 1)


def test_a_release_without_goldens_brings_no_image(release: Release) -> None:
    document = json.loads((release.path / MANIFEST).read_text())
    document["files"] = [f for f in document["files"] if f["path"] != GOLDENS]
    (release.path / MANIFEST).write_bytes(json_bytes(document))
    with pytest.raises(ReleaseError, match=r"has no goldens.npz; run `hwr-export onnx` again"):
        start_up(release.path, "onnxruntime", "fp32", 1, 1)
