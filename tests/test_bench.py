import json
import os
from pathlib import Path

import numpy as np
import pytest

from hwr_export.bench import bench
from hwr_export.errors import ReleaseError, RunnerError, UsageError
from hwr_export.files import json_bytes
from hwr_export.native import NativeConfig, build_native
from hwr_export.release import BENCH, BENCH_SAMPLES, PARITY, Release
from hwr_export.subjects import BenchConfig, Subject, Subjects, most_first, on_processors
from tests.conftest import one_json
from tests.engine.test_api import VERSIONS
from tests.machine import Machine


def test_the_document(release_dir: Path, hwr) -> None:
    chosen = ("--backend", "onnxruntime", "--backend", "openvino", "--backend", "eager-bf16", "--starts", 1)
    result = hwr("bench", release_dir, "--json", "--batch", 1, "--batch", 7, "--seconds", 0.05, *chosen)
    assert result.exit_code == 0, result.output
    document = one_json(result.stdout)
    assert document["schema"] == 3
    assert {c["backend"] for c in document["cells"]} == {"eager", "eager-bf16", "onnxruntime", "openvino"}
    assert {c["batch"] for c in document["cells"]} == {1, 7}
    for cell in document["cells"]:
        assert cell["n"] >= 200
        assert 0 < cell["p50_us"] <= cell["p90_us"]
        assert cell["p50_ci_us"][0] <= cell["p50_us"] <= cell["p50_ci_us"][1]
        assert (cell["p99_us"] is None) == (cell["n"] < 368)
        assert cell["images_per_s"] == pytest.approx(cell["batch"] / cell["p50_us"] * 1e6, rel=0.9)
        assert cell["offline_images_per_s"] > 0
        assert cell["phases_us"]["compute"] > 0
        for value, low, high in (cell["undisturbed_us"], cell["yardstick_us"]):
            assert 0 < low <= value <= high
        assert cell["undisturbed_us"][0] <= cell["p50_us"]
        assert cell["verdict"] is None  # parity was not run
        if cell["backend"] == "eager":
            assert cell["speedup_vs_eager"] == 1
    assert document["data"]["name"] == "mnist"
    starts = {(s["backend"], s["precision"]): s for s in document["starts"]}
    assert set(starts) == {(c["backend"], c["precision"]) for c in document["cells"]}
    assert starts["onnxruntime", "fp32"]["peak_rss_mib"] < starts["eager", "fp32"]["peak_rss_mib"]
    assert all(s["load_s"] > 0 and s["first_answer_s"] > 0 for s in starts.values())
    assert [w["batch"] for w in document["watches"]] == [1, 7]
    with np.load(release_dir / BENCH_SAMPLES) as kept:
        sizes = {name: kept[name].size for name in kept.files}
    assert {f"{c['backend']}/{c['precision']}/{c['batch']}/1": c["n"] for c in document["cells"]} == sizes
    assert json.loads((release_dir / BENCH).read_text()) == document
    assert all(s.ok for s in Release.open(release_dir).verify())
    assert "interleaved in one run" in (release_dir / "MODEL_CARD.md").read_text()


def test_without_torch_the_rest_is_measured_and_said(release_dir: Path, hwr_process) -> None:
    arguments = (
        "bench",
        release_dir,
        "--json",
        "--batch",
        1,
        "--seconds",
        0.01,
        "--backend",
        "onnxruntime",
        "--starts",
        0,
    )
    result = hwr_process(*arguments, without=("torch",))
    assert result.returncode == 0, result.stderr
    document = one_json(result.stdout)
    assert document["absent"] == [{"backend": "eager", "reason": "torch is not installed"}]
    assert [c["speedup_vs_eager"] for c in document["cells"]] == [None]
    assert "| - |" in (release_dir / "MODEL_CARD.md").read_text()


def test_what_is_not_here_is_listed_with_the_reason(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hwr_export.runners.NVIDIA_DRIVER", ("/nowhere",))
    monkeypatch.setattr("hwr_export.subjects.VARIANTS", {"eager": "fp32"})
    absent = bench(release, BenchConfig(batches=(1,), seconds=0.01, starts=0))["absent"]
    reasons = {a["backend"]: a["reason"] for a in absent}
    assert reasons["onnxruntime-cuda"] == reasons["onnxruntime-tensorrt"]
    assert "no NVIDIA GPU here" in reasons["onnxruntime-cuda"]


def test_what_would_be_emulated_is_measured_only_where_it_is_asked_for(
    release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hwr_export.subjects.has_bf16", lambda: False)
    chosen = Subjects(release, BenchConfig(batches=(1,)))
    assert Subject("eager-bf16", "bf16") not in chosen.chosen
    assert {"backend": "eager-bf16", "reason": "this processor has no bf16 arithmetic; PyTorch would emulate it"} in (
        chosen.absent
    )
    asked = Subjects(release, BenchConfig(batches=(1,), backends=("eager-bf16",)))
    assert Subject("eager-bf16", "bf16") in asked.chosen
    monkeypatch.setattr("hwr_export.subjects.has_bf16", lambda: True)
    assert Subject("eager-bf16", "bf16") in Subjects(release, BenchConfig(batches=(1,))).chosen


def test_a_file_that_failed_parity_is_struck_through(release_dir: Path, hwr) -> None:
    assert hwr("parity", release_dir, "--baseline", "goldens", "--backend", "onnxruntime").exit_code == 0
    release = Release.open(release_dir)
    parity = json.loads((release_dir / PARITY).read_text())
    parity["cells"][0]["verdict"] = "FAIL"
    with release.change() as change:
        change.write(PARITY, json_bytes(parity), "parity", [release.onnx("fp32").sha256])
    quick = ("--batch", 1, "--seconds", 0.01, "--starts", 0)
    result = hwr("bench", release_dir, *quick, "--backend", "onnxruntime", "--backend", "openvino")
    assert result.exit_code == 0, result.output
    assert "~onnxruntime~" in result.stdout
    assert "~FAIL~" in result.stdout
    assert "~openvino~" not in result.stdout
    assert "Not every file was judged" in result.stdout


def test_against_an_earlier_run(release_dir: Path, tmp_path: Path, hwr) -> None:
    quick = ("--batch", 1, "--seconds", 0.01, "--starts", 0, "--backend", "onnxruntime")
    assert hwr("bench", release_dir, *quick).exit_code == 0
    before = json.loads((release_dir / BENCH).read_text())
    for cell in before["cells"]:  # what was measured took three times as long before
        cell["undisturbed_us"] = [3 * us for us in cell["undisturbed_us"]]
    earlier = tmp_path / "before.json"
    earlier.write_text(json.dumps(before))
    result = hwr("bench", release_dir, *quick, "--against", earlier, "--json")
    comparison = one_json(result.stdout)["comparison"]
    assert result.exit_code == 0
    assert {c["answer"] for c in comparison["cells"]} == {"FASTER"}
    for cell in before["cells"]:
        cell["undisturbed_us"] = [us / 9 for us in cell["undisturbed_us"]]
    earlier.write_text(json.dumps(before))
    result = hwr("bench", release_dir, *quick, "--against", earlier)
    assert result.exit_code == 1
    assert "SLOWER" in result.stdout


def test_the_most_threads_are_measured_first(release: Release) -> None:
    """OpenVINO and OpenMP would stay for good on the one processor that they found at first."""
    assert most_first((1, 4, 2)) == [4, 2, 1]
    config = BenchConfig(batches=(1,), threads=(1, 2), seconds=0.01, starts=0, backends=("onnxruntime",))
    if len(os.sched_getaffinity(0)) > 1:
        assert [w["threads"] for w in bench(release, config)["watches"]] == [2, 1]
    before = os.sched_getaffinity(0)
    with on_processors(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before


@pytest.mark.parametrize("version", VERSIONS)
def test_plans_are_measured_like_files(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str
) -> None:
    """On fakes of CUDA and TensorRT: the times mean nothing."""
    machine = Machine(monkeypatch, tmp_path, version)
    build_native(release, NativeConfig(product=machine.product))
    config = BenchConfig(batches=(1, 16), seconds=0.01, backends=(machine.product,))
    cells = bench(Release.open(release.path), config)["cells"]
    plans = [c for c in cells if c["backend"] != "eager"]
    assert [(c["backend"], c["precision"], c["batch"]) for c in plans] == [
        (machine.product, "fp32", 1),
        (machine.product, "fp32", 16),
    ]
    assert all(0 < c["p50_us"] <= c["p90_us"] for c in plans)
    engine = next(f for f in Release.open(release.path).manifest.files if f.role == "engine")
    (release.path / engine.path).write_bytes(b"junk" * 50)
    machine.has()
    with pytest.raises(RunnerError, match="is not the file the manifest vouches for"):
        bench(Release.open(release.path), config)


def test_a_plan_asked_for_that_is_not_there_is_refused(release: Release) -> None:
    with pytest.raises(UsageError, match="no plan of tensorrt_rtx runs here: the release has none"):
        bench(release, BenchConfig(batches=(1,), backends=("tensorrt_rtx",)))


def test_an_unknown_backend_is_refused_before_anything_is_measured(release: Release) -> None:
    with pytest.raises(UsageError, match=r"there is no backend 'tflite'; known: eager, .*onnxruntime-tensorrt"):
        bench(release, BenchConfig(batches=(1,), backends=("tflite",)))


@pytest.mark.parametrize(
    "config", [BenchConfig(batches=(0,)), BenchConfig(batches=(17,)), BenchConfig(threads=(0,)), BenchConfig(seconds=0)]
)
def test_impossible_settings_are_refused(release: Release, config: BenchConfig) -> None:
    with pytest.raises(UsageError):
        bench(release, config)


def test_a_changed_model_is_not_measured(release: Release) -> None:
    (release.path / "model.fp32.onnx").write_bytes(b"x")
    with pytest.raises(ReleaseError, match="not the file the manifest vouches for"):
        bench(release, BenchConfig(batches=(1,)))
