import json
from pathlib import Path

import pytest

from hwr_export.errors import ReleaseError, UsageError
from hwr_export.files import json_bytes
from hwr_export.recommend import recommend
from hwr_export.release import BENCH, PARITY, Release
from tests.conftest import one_json

# backend, precision -> verdict, accuracy, microseconds at batch 1.
CELLS = {
    ("onnxruntime", "fp32"): ("PASS", 0.996, 90.0),
    ("onnxruntime", "int8"): ("PASS", 0.996, 400.0),
    ("onnxruntime", "int8-cpu"): ("PASS", 0.9961, 60.0),
    ("openvino", "fp32"): ("PASS", 0.996, 120.0),
    ("openvino", "int8"): ("FAIL", 0.95, 50.0),
    ("openvino", "int8-cpu"): ("UNDECIDED", 0.9958, 40.0),
}
SIZES = {"fp32": 1000, "int8": 400, "int8-cpu": 380}


@pytest.fixture
def measured(release_dir: Path) -> Release:
    """The tiny release with two more files and evidence whose every number is known."""
    release = Release.open(release_dir)
    fp32 = release.onnx("fp32")
    with release.change() as change:
        models = [fp32.sha256]
        for precision in ("int8", "int8-cpu"):
            data = precision.encode().ljust(SIZES[precision])
            models.append(change.write(f"model.{precision}.onnx", data, "onnx", [fp32.sha256], precision).sha256)
        cells = [{"backend": b, "precision": p, "verdict": v, "accuracy": a} for (b, p), (v, a, _) in CELLS.items()]
        change.write(PARITY, json_bytes({"cells": cells}), "parity", models)
        cells = [
            {"backend": b, "precision": p, "batch": n, "threads": 1, "p50_us": us * n}
            for n in (1, 32)
            for (b, p), (_, _, us) in [*CELLS.items(), (("eager", "fp32"), ("", 0, 500.0))]
        ]
        change.write(BENCH, json_bytes({"cells": cells}), "bench", models)
    return Release.open(release_dir)


def test_the_fastest_that_passes_is_recommended_for_each_backend(measured: Release) -> None:
    document = recommend(measured)
    assert document["recommended"] == {
        "backend": "onnxruntime", "precision": "int8-cpu", "path": "model.int8-cpu.onnx"
    }  # fmt: skip
    found = {(c["backend"], c["precision"]): c for c in document["cells"]}
    assert [key for key, c in found.items() if c["recommended"]] == [("onnxruntime", "int8-cpu"), ("openvino", "fp32")]
    assert found["onnxruntime", "int8"]["why"] == "does not pay: 4.4 times slower than fp32 on onnxruntime"
    assert found["onnxruntime", "fp32"]["why"] == "int8-cpu is 1.5 times faster"
    assert found["openvino", "int8"]["why"] == "parity says FAIL"
    assert found["openvino", "int8-cpu"]["why"] == "parity says UNDECIDED"
    assert found["onnxruntime", "int8-cpu"]["speedup"] == 1.5
    assert found["onnxruntime", "int8-cpu"]["error_percent"] == pytest.approx(0.39)


def test_the_front_holds_what_nothing_beats_in_error_latency_and_size(measured: Release) -> None:
    # int8-cpu on ONNX Runtime is better than everything else that passed, in all three.
    front = [(c["backend"], c["precision"]) for c in recommend(measured, batch=32)["cells"] if c["on_front"]]
    assert front == [("onnxruntime", "int8-cpu")]


def test_evidence_about_other_files_is_refused(measured: Release) -> None:
    with measured.change() as change:
        change.write("model.fp16.onnx", b"newer", "onnx", [measured.onnx("fp32").sha256], "fp16")
    with pytest.raises(ReleaseError, match=r"holds ONNX files newer than its parity.json; run `hwr-export parity"):
        recommend(Release.open(measured.path))


def test_what_was_not_measured_is_refused(measured: Release, release_dir: Path) -> None:
    with pytest.raises(UsageError, match=r"did not measure a batch of 8 on 1 thread\(s\); it has 1 on 1, 32 on 1"):
        recommend(measured, batch=8)


def test_a_release_without_evidence_is_refused(release_dir: Path, hwr) -> None:
    result = hwr("recommend", release_dir)
    assert result.exit_code == 2
    assert "has no parity.json; run `hwr-export parity" in result.stderr


def test_a_limit_picks_the_batch_too(measured: Release) -> None:
    # Latency grows with the batch and throughput does not: the smallest batch reads as many a second as any.
    fastest = min(us for (_, _), (verdict, _, us) in CELLS.items() if verdict == "PASS")
    found = recommend(measured, max_latency_us=40 * fastest)
    assert found["batch"] in (1, 32)
    assert found["recommended"]["path"] == "model.int8-cpu.onnx"
    tight = recommend(measured, max_latency_us=fastest / 2)
    assert tight["recommended"] is None
    assert {c["why"][:24] for c in tight["cells"] if c["verdict"] == "PASS"} == {"one in a hundred calls t"}


def test_targets(measured: Release, hwr) -> None:
    assert recommend(measured, target="cpu")["recommended"] == recommend(measured)["recommended"]
    result = hwr("recommend", measured.path, "--target", "gpu")
    assert result.exit_code == 2
    assert "did not measure a batch of 1" in result.stderr
    result = hwr("recommend", measured.path, "--target", "cpu", "--max-latency-us", 0.5)
    assert result.exit_code == 1
    assert "Nothing passed parity and answers within 0 us" in result.stdout or "within 1 us" in result.stdout


def test_the_command(measured: Release, hwr) -> None:
    result = hwr("recommend", measured.path, "--batch", 32)
    assert result.exit_code == 0, result.output
    assert "does not pay: 4.4 times slower than fp32 on onnxruntime" in result.stdout
    assert "Ship model.int8-cpu.onnx on onnxruntime, batches of 32." in result.stdout
    assert one_json(hwr("recommend", measured.path, "--json").stdout) == json.loads(
        json_bytes(recommend(measured)).decode()
    )
