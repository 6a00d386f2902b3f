from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwr_export.datasets import load_mnist
from hwr_export.errors import ReleaseError
from hwr_export.reader import read_images
from hwr_export.release import MANIFEST, Release
from tests.conftest import one_json


def test_digits_are_read_in_order(release: Release, tmp_path: Path) -> None:
    data = load_mnist("train")
    chosen = range(50_000, 50_060)
    paths = []
    for i in chosen:
        paths.append(tmp_path / f"{i}.png")
        side = 28 * (1 + i % 3)
        pixels = data.images[i] if i % 2 else 255 - data.images[i]
        Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC).save(paths[-1])
    document = read_images(release, paths)
    assert [r["image"] for r in document["results"]] == [str(p) for p in paths]
    right = [r["label"] == str(data.labels[i]) for r, i in zip(document["results"], chosen, strict=True)]
    assert np.mean(right) > 0.85


def test_a_blank_is_rejected_not_guessed(release_dir: Path, digit_png: Path, tmp_path: Path, hwr) -> None:
    Image.new("L", (40, 40), 230).save(tmp_path / "blank.png")
    result = hwr("read", digit_png, tmp_path / "blank.png", "--release", release_dir, "--json")
    assert result.exit_code == 0
    seven, blank = one_json(result.stdout)["results"]
    assert seven["label"] == "7"
    assert blank == {"image": str(tmp_path / "blank.png"), "label": None, "confidence": 0.0, "rejected": True}


@pytest.mark.parametrize(("threshold", "rejected"), [(0.0, False), (1.0, True)])
def test_the_releases_threshold_decides(release_dir: Path, digit_png: Path, threshold: float, rejected: bool) -> None:
    manifest = (release_dir / MANIFEST).read_text()
    old = f'"reject_below": {Release.open(release_dir).spec.reject_below!r}'
    assert old in manifest
    (release_dir / MANIFEST).write_text(manifest.replace(old, f'"reject_below": {threshold}'))
    (result,) = read_images(Release.open(release_dir), [digit_png])["results"]
    assert result["rejected"] is rejected


def test_a_changed_model_reads_nothing(release_dir: Path, digit_png: Path) -> None:
    model = release_dir / "model.fp32.onnx"
    model.write_bytes(model.read_bytes()[:-1])
    with pytest.raises(ReleaseError, match="not the file the manifest vouches for"):
        read_images(Release.open(release_dir), [digit_png])
