import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export import peaks
from hwr_export.release import PROFILE, Release
from hwr_export.roofline import Line, bound, fit_line
from tests.conftest import one_json


@given(st.floats(0, 500), st.floats(0.5, 300))
def test_a_line_is_found_again(overhead: float, slope: float) -> None:
    batches = [1, 2, 4, 8, 16, 64, 256]
    found = fit_line(batches, [overhead + slope * n for n in batches])
    assert found.overhead_us == pytest.approx(overhead, abs=1e-4, rel=1e-4)
    assert found.us_per_image == pytest.approx(slope, rel=1e-4)


def test_a_line_never_starts_below_zero() -> None:
    found = fit_line([1, 2, 4], [1.0, 2.2, 5.0])  # a cache that overflows: dearer by the image as batches grow
    assert found.overhead_us == 0
    assert 1 <= found.us_per_image <= 1.3


@pytest.mark.parametrize(
    ("line", "batch", "flop", "moved", "name"),
    [
        (Line(80, 20), 1, 1e6, 1e3, "overhead"),
        (Line(0, 100), 1, 80e6, 1e5, "compute"),
        (Line(0, 100), 1, 1e6, 8e5, "memory"),
        (Line(0, 100), 1, 1e6, 1e4, "kernels"),
    ],
)
def test_what_binds(line: Line, batch: int, flop: float, moved: float, name: str) -> None:
    found = bound(line, batch, line.at(batch), flop, moved, peak=1e12, memory=1e10)
    assert found["bound"] == name


def test_the_document(quantized: Release, hwr, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peaks, "SIDE", 128)
    monkeypatch.setattr(peaks, "COPY_BYTES", 1 << 20)
    quick = ("--batch", 1, "--batch", 16, "--threads", 1, "--seconds", 0.01)
    result = hwr("profile", quantized.path, *quick, "--backend", "openvino", "--backend", "onnxruntime", "--json")
    assert result.exit_code == 0, result.output
    document = one_json(result.stdout)
    assert json.loads((Path(quantized.path) / PROFILE).read_text()) == document
    (peak,) = document["peaks"]
    assert peak["fp32"]["gflops"] > 0
    assert peak["memory_gb_s"] > 0
    rows = {(s["backend"], s["precision"]): s for s in document["scaling"]}
    assert ("onnxruntime", "int8-cpu") in rows
    assert rows["openvino", "int8"]["arithmetic"] == "int8"
    for row in rows.values():
        assert [p["batch"] for p in row["points"]] == [1, 16]
        assert row["us_per_image"] > 0
    int8 = next(m for m in document["models"] if m["precision"] == "int8")
    shares = [one["share"] for one in int8["layers"] if one["share"]]
    assert len(shares) > 5
    assert 0.5 < sum(shares) <= 1.01
    assert any("lanes idle" in one["waste"] for one in int8["layers"])
    table = hwr("profile", quantized.path, *quick, "--backend", "onnxruntime")
    assert "of peak" in table.stdout
    assert "lanes idle" in table.stdout
