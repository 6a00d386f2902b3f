"""The shapes that plans are prepared for, asked of the real builder too."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.engine.build import engine_from_onnx
from hwr_export.engine.options import Profile, batch_ranges
from hwr_export.engine.products import load_product
from hwr_export.errors import EngineError
from hwr_export.release import Release
from tests.conftest import one_json


@given(st.integers(1, 300), st.data())
def test_every_batch_has_one_profile_and_every_wanted_one_is_the_best_of_its_own(max_batch: int, data) -> None:
    opts = data.draw(st.lists(st.integers(1, max_batch), max_size=5))
    ranges = batch_ranges(opts, max_batch)
    assert [n for low, _, high in ranges for n in range(low, high + 1)] == list(range(1, max_batch + 1))
    assert [opt for _, opt, _ in ranges] == (sorted(set(opts)) or [1])
    assert all(low <= opt <= high for low, opt, high in ranges)


def test_the_profiles_that_the_documentation_shows() -> None:
    assert batch_ranges((), 256) == [(1, 1, 256)]
    assert batch_ranges((256, 1, 32), 256) == [(1, 1, 1), (2, 32, 32), (33, 256, 256)]
    assert batch_ranges((8,), 1024) == [(1, 8, 1024)]
    assert batch_ranges((), 1) == [(1, 1, 1)]


def test_the_sidecar_tells_every_profile(release_dir: Path, hwr) -> None:
    words = ("--target", "sm86", "--opt-batch", "16", "--opt-batch", "1")
    (engine,) = one_json(hwr("trt", release_dir, *words, "--json").stdout)["engines"]
    assert [[shape[0] for shape in p["image"].values()] for p in engine["profiles"]] == [[1, 1, 1], [2, 16, 16]]
    (one,) = one_json(hwr("trt", release_dir, "--target", "sm86", "--max-batch", "1", "--json").stdout)["engines"]
    assert one["profiles"] == [{"image": {kind: [1, 28, 28] for kind in ("min", "opt", "max")}}]
    assert one["size_bytes"] < engine["size_bytes"]


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"image": ((2, 28, 28), (1, 28, 28), (16, 28, 28))}, r"'image' is \(2, 28, 28\) to \(16, 28, 28\), best at"),
        ({"image": ((1, 28), (1, 28), (16, 28))}, r"the graph takes \(-1, 28, 28\), where -1 is any"),
        ({"image": ((1, 32, 28), (1, 32, 28), (16, 32, 28))}, r"give shapes of that form"),
        ({"image": ((-1, 28, 28), (1, 28, 28), (16, 28, 28))}, r"give shapes of that form"),
        ({}, r"for \[\], and the graph's inputs are \{'image': \(-1, 28, 28\)\}; give"),
        ({"picture": ((1, 28, 28), (1, 28, 28), (16, 28, 28))}, r"for \['picture'\], and the graph's"),
    ],
)
def test_a_profile_that_does_not_fit_the_graph(release: Release, profile: Profile, message: str) -> None:
    product = load_product(None, ["sm86"])
    with pytest.raises(EngineError, match=message):
        engine_from_onnx(release.read(release.onnx("fp32")), product, ["sm86"], "ab" * 32, [profile])
