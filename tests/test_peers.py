from pathlib import Path

import numpy as np
import pytest

from hwr_export.datasets import Dataset
from hwr_export.release import Release
from hwr_export.runners.release import open_runner
from hwr_export.spec import INPUT, LOGITS, PROBABILITIES
from tests.conftest import ROOT
from tests.test_docs import load_script

bench_peers = load_script("bench_peers")
network = load_script("peers_network")


@pytest.fixture(scope="module")
def reference() -> Release:
    return Release.open(ROOT / bench_peers.RELEASE)


@pytest.fixture(scope="module")
def exported(reference: Release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("peers")
    network.torch_onnx(str(reference.path), str(out / "plain.onnx"))
    return out


def test_a_peers_runner_answers_as_the_eager_model(reference: Release, exported: Path, mnist_test: Dataset) -> None:
    images, labels = mnist_test.images[:300], mnist_test.labels[:300]
    with open_runner(reference, "eager", "fp32") as eager:
        baseline = eager.infer_all(images)
    for kind in (bench_peers.PeerOnnxRuntime, bench_peers.PeerOpenVino):
        with kind(exported / "plain.onnx", reference.spec) as runner:
            found = bench_peers.judged(runner, baseline, images, labels)
            assert found["n"] == 300
            if kind is bench_peers.PeerOnnxRuntime:  # OpenVINO chooses its own precision
                assert found["agreement"] == 300
                assert found["max_abs_logit_diff"] < 1e-4
                assert found["right"] == (baseline[LOGITS].argmax(axis=1) == labels).sum()
                probabilities = runner.infer({INPUT: images[:7]})[PROBABILITIES]
                assert np.allclose(probabilities, baseline[PROBABILITIES][:7], atol=1e-5)
            assert found["agreement"] >= 298
            assert list(runner.phases({INPUT: images[:2]})) == ["preprocess", "compute", "softmax"]


def test_a_disagreement_is_counted(reference: Release, exported: Path, mnist_test: Dataset) -> None:
    images, labels = mnist_test.images[:50], mnist_test.labels[:50]
    with bench_peers.PeerOnnxRuntime(exported / "plain.onnx", reference.spec) as runner:
        other = {LOGITS: np.roll(runner.infer_all(images)[LOGITS], 1, axis=1)}
        found = bench_peers.judged(runner, other, images, labels)
    assert found["agreement"] == 0
    assert found["max_abs_logit_diff"] > 1


def test_the_cells_are_complete(reference: Release, exported: Path, mnist_test: Dataset) -> None:
    runners = {
        ("hwr-export fp32", "onnxruntime"): open_runner(reference, "onnxruntime", "fp32"),
        ("torch.onnx", "onnxruntime"): bench_peers.PeerOnnxRuntime(exported / "plain.onnx", reference.spec),
    }
    with runners["hwr-export fp32", "onnxruntime"], runners["torch.onnx", "onnxruntime"]:
        rows, watch = bench_peers.latencies(runners, mnist_test.images, 2, 1, 0.01)
    assert [(r["name"], r["backend"]) for r in rows] == list(runners)
    assert rows[0]["speedup_vs_eager"] == 1
    assert all(0 < r["p50_us"] <= r["p90_us"] and r["batch"] == 2 and r["threads"] == 1 for r in rows)
    assert watch["batch"] == 2
    assert isinstance(watch["noisy"], list)


def test_only_files_that_passed_are_ours(reference: Release) -> None:
    found = bench_peers.ours(reference, 1)
    assert next(iter(found)) == ("eager PyTorch", "torch")
    assert ("hwr-export int8", "openvino") in found
    assert ("hwr-export int8-cpu", "openvino") not in found


def test_every_peer_has_a_runner_of_its_file(reference: Release, tmp_path: Path) -> None:
    found = bench_peers.peers(tmp_path, reference.spec, 1)
    assert {name for name, _ in found} == set(bench_peers.FILES) <= set(bench_peers.COMMANDS)
    assert {backend for name, backend in found if name == bench_peers.MODELOPT} == {"onnxruntime", "openvino"}


def test_a_process_is_timed_and_its_failure_told(tmp_path: Path) -> None:
    taken = bench_peers.run(["python", "-c", "sum(range(10**6)); open('OUT/made', 'w')"], tmp_path)
    assert taken["cpu_s"] > 0
    assert taken["wall_s"] > 0
    assert (tmp_path / "made").is_file()
    with pytest.raises(SystemExit, match=r"failed:\n.*broken"):
        bench_peers.run(["python", "-c", "raise SystemExit('broken')"], tmp_path)


def test_reach_is_held_against_its_bounds() -> None:
    times = {bench_peers.OURS: {"wall_s": 6.0, "cpu_s": 5.0}, bench_peers.FLOOR: {"wall_s": 2.0, "cpu_s": 2.5}}
    found = bench_peers.reach(times, {"cpu_s": 0.2, "peak_rss_mib": 76.0})
    assert found["export_against_imports"] == {"wall": 3.0, "cpu": 2.0, "at_most": 2.5, "reached": False}
    assert found["torch_free_start"]["reached"]
    assert not bench_peers.reach(times, {"cpu_s": 0.2, "peak_rss_mib": 119.0})["torch_free_start"]["reached"]
