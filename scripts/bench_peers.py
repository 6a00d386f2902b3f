"""The reference network through other people's exporters and ours, side by side in one run: docs/figures/peers.json.

    pip install -r scripts/peers-requirements.txt   # in an environment of its own
    python scripts/bench_peers.py [PROCESSES]       # whole processes to start of each exporter, 3 if not said

A peer's file takes normalised floats and returns logits; the rest is done by the caller in NumPy, and timed and judged.
"""

import importlib.metadata
import os
import random
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.bench import TIMED  # noqa: E402
from hwr_export.cold import start_up  # noqa: E402
from hwr_export.datasets import load_mnist  # noqa: E402
from hwr_export.evidence import evidence, verdict_in  # noqa: E402
from hwr_export.files import json_bytes, write_atomic  # noqa: E402
from hwr_export.latency import ratio, round_medians, spread, summary  # noqa: E402
from hwr_export.machine import Moment, machine_facts, watched  # noqa: E402
from hwr_export.measurement import measure, phases  # noqa: E402
from hwr_export.release import PARITY, Release, is_for  # noqa: E402
from hwr_export.runners import EAGER, Arrays, Runner  # noqa: E402
from hwr_export.runners.release import open_runner  # noqa: E402
from hwr_export.spec import INPUT, LOGITS, PROBABILITIES, ModelSpec  # noqa: E402
from hwr_export.subjects import most_first, on_processors  # noqa: E402

RELEASE = Path("exported") / "digits"
PACKAGES = ("torch", "onnx", "onnxscript", "onnxruntime", "openvino", "olive-ai", "nvidia-modelopt", "numpy")
BATCHES, SECONDS = (1, 32, 256), 0.5
CALIBRATION_IMAGES = 512  # as many as `hwr-export quantize` takes
MAX_CPU_S, MAX_RSS_MB, MAX_EXPORT_RATIO = 0.25, 120, 2.5

# Whole processes, in the order in which they need one another's files; OUT is an empty directory.
FLOOR, OURS, PLAIN, OPENVINO, OLIVE, MODELOPT = (
    "imports alone",
    "hwr-export onnx",
    "torch.onnx",
    "OpenVINO",
    "Olive",
    "ModelOpt int8",
)
QUANTIZE = "hwr-export quantize"
COMMANDS = {
    FLOOR: ["python", "-c", "import torch, onnx, onnxscript"],
    OURS: ["python", "-m", "hwr_export", "onnx", "RELEASE", "-o", "OUT/ours"],
    PLAIN: ["python", "SCRIPTS/peers_network.py", "torch-onnx", "RELEASE", "OUT/plain.onnx"],
    OPENVINO: ["python", "SCRIPTS/peers_network.py", "openvino", "RELEASE", "OUT/openvino.xml"],
    OLIVE: [
        "olive", "capture-onnx-graph", "-m", "RELEASE", "--model_script", "SCRIPTS/peers_network.py", "-o", "OUT/olive",
    ],
    MODELOPT: [
        "python", "-m", "modelopt.onnx.quantization", "--onnx_path", "OUT/plain.onnx", "--quantize_mode", "int8",
        "--calibration_data_path", "OUT/calibration.npy", "--calibration_eps", "cpu",
        "--output_path", "OUT/modelopt.onnx",
    ],
}  # fmt: skip
QUANTIZE_COMMAND = ["python", "-m", "hwr_export", "quantize", "OUT/ours"]
# A peer's files, of which the first is loaded.
FILES = {
    PLAIN: ("plain.onnx", "plain.onnx.data"),
    OPENVINO: ("openvino.xml", "openvino.bin"),
    OLIVE: ("olive/model.onnx",),
    MODELOPT: ("modelopt.onnx",),
}
# Without these, Olive asks a model hub for the network and waits, and reports home.
ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OLIVE_DISABLE_TELEMETRY": "1", "PYTHONPATH": str(ROOT)}


class PeerRunner(Runner):
    """A network alone: its caller normalises the pixels and takes the softmax, in NumPy as its user would."""

    def __init__(self, model: Path, spec: ModelSpec, threads: int = 1) -> None:
        super().__init__(spec, threads)
        self._model = model

    def _logits(self, image: np.ndarray) -> np.ndarray:
        """float32 (N, C, H, W) -> float32 (N, classes)."""
        raise NotImplementedError

    def _infer(self, inputs: Arrays) -> Arrays:
        logits = self._logits(normalised(inputs[INPUT], self.spec))
        return {LOGITS: logits, PROBABILITIES: softmax(logits, self.spec)}

    def _phases(self, inputs: Arrays) -> dict[str, int]:
        times = [time.perf_counter_ns()]
        image = normalised(inputs[INPUT], self.spec)
        times.append(time.perf_counter_ns())
        logits = self._logits(image)
        times.append(time.perf_counter_ns())
        softmax(logits, self.spec)
        times.append(time.perf_counter_ns())
        names = ("preprocess", "compute", "softmax")
        return {name: b - a for name, a, b in zip(names, times, times[1:], strict=False)}


def normalised(image: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """uint8 (N, H, W) -> float32 (N, C, H, W), as the network sees it."""
    p = spec.preprocessing
    grey = image[:, None].astype(np.float32) * np.float32(1 / (255 * p.std)) + np.float32(-p.mean / p.std)
    return grey if p.channels == 1 else np.repeat(grey, p.channels, axis=1)


def softmax(logits: np.ndarray, spec: ModelSpec) -> np.ndarray:
    """float32 (N, classes) -> probabilities, float32, calibrated as ours are."""
    scaled = logits / np.float32(spec.temperature)
    exp = np.exp(scaled - scaled.max(axis=1, keepdims=True))
    return exp / exp.sum(axis=1, keepdims=True)


class PeerOnnxRuntime(PeerRunner):
    """ONNX Runtime's defaults but for the number of threads."""

    backend = package = "onnxruntime"

    def _open(self) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = self.threads
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(self._model), options, providers=["CPUExecutionProvider"])
        self._input = self._session.get_inputs()[0].name

    def _logits(self, image: np.ndarray) -> np.ndarray:
        return self._session.run(None, {self._input: image})[0]


class PeerOpenVino(PeerRunner):
    """OpenVINO's defaults, its precision hint among them, but for the number of threads."""

    backend = package = "openvino"

    def _open(self) -> None:
        import openvino

        config = {"INFERENCE_NUM_THREADS": self.threads}
        self._compiled = openvino.Core().compile_model(str(self._model), "CPU", config)
        self.hint = self._compiled.get_property("INFERENCE_PRECISION_HINT").to_string()

    def _logits(self, image: np.ndarray) -> np.ndarray:
        return np.array(self._compiled([image])[0])


# What runs a peer's file, where not ONNX Runtime alone. ModelOpt's has TensorRT's kind of Q/DQ, as our int8 has, which
# ONNX Runtime's CPU kernels are slow on: ours is measured on OpenVINO too, so this one is.
RUNTIMES = {OPENVINO: (PeerOpenVino,), MODELOPT: (PeerOnnxRuntime, PeerOpenVino)}


def run(command: Sequence[str], out: Path) -> dict[str, float]:
    """Run one whole process and return its seconds; what it says is shown only where it fails."""
    words = [w.replace("RELEASE", str(ROOT / RELEASE)).replace("OUT", str(out)) for w in command]
    words = [w.replace("SCRIPTS", str(ROOT / "scripts")) for w in words]
    program = sys.executable if words[0] == "python" else str(Path(sys.executable).parent / words[0])
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        process = subprocess.Popen(
            [program, *words[1:]], cwd=out, env=os.environ | ENVIRONMENT, stdout=said, stderr=said
        )
        _, status, usage = os.wait4(process.pid, 0)
        took = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            said.seek(0)
            sys.exit(f"{' '.join(command)} failed:\n{said.read().decode(errors='replace')[-2000:]}")
    return {"wall_s": round(took, 2), "cpu_s": round(usage.ru_utime + usage.ru_stime, 2)}


def exports(out: Path, processes: int) -> dict[str, dict[str, Any]]:
    """Run every command so many times, one after the other in rounds; the files of the last round stay in `out`."""
    spec = Release.open(ROOT / RELEASE).spec
    images = load_mnist("train").images[:CALIBRATION_IMAGES]
    np.save(out / "calibration.npy", normalised(images, spec))
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in COMMANDS}
    for _ in range(processes):
        for name, command in COMMANDS.items():
            if name == OLIVE:  # it keeps what it did before
                shutil.rmtree(out / ".olive-cache", ignore_errors=True)
            taken[name].append(run(command, out))
            print(f"{name}: {taken[name][-1]}", file=sys.stderr)
    taken[QUANTIZE] = [run(QUANTIZE_COMMAND, out)]
    return {name: export_row(name, runs) for name, runs in taken.items()}


def export_row(name: str, runs: list[dict[str, float]]) -> dict[str, Any]:
    medians = {key: round(statistics.median(r[key] for r in runs), 2) for key in ("wall_s", "cpu_s")}
    command = shlex.join(QUANTIZE_COMMAND if name == QUANTIZE else COMMANDS[name])
    return {"command": command, "n": len(runs), **medians, "processes": runs}


def peers(out: Path, spec: ModelSpec, threads: int) -> dict[tuple[str, str], PeerRunner]:
    """Return the peers' files that lie in `out`, by name of the peer and backend."""
    found: dict[tuple[str, str], PeerRunner] = {}
    for name, (file, *_) in FILES.items():
        for kind in RUNTIMES.get(name, (PeerOnnxRuntime,)):
            found[name, kind.backend] = kind(out / file, spec, threads)
    return found


def ours(release: Release, threads: int) -> dict[tuple[str, str], Runner]:
    """Return every file of the release that passed parity on onnxruntime and openvino, and the eager model first."""
    parity = evidence(release, PARITY)
    found = {("eager PyTorch", "torch"): open_runner(release, EAGER, "fp32", threads)}
    for model in release.by_role("onnx"):
        precision = str(model.precision)
        for backend in ("onnxruntime", "openvino"):
            if is_for(precision, backend) and verdict_in(parity, backend, precision) == "PASS":
                found[f"hwr-export {precision}", backend] = open_runner(release, backend, precision, threads)
    return found


def judged(runner: Runner, baseline: Arrays, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Compare a runner with the eager model's answers to the same uint8 images."""
    logits = runner.infer_all(images)[LOGITS]
    answers, expected = logits.argmax(axis=1), baseline[LOGITS].argmax(axis=1)
    return {
        "n": len(images),
        "agreement": int((answers == expected).sum()),
        "right": int((answers == labels).sum()),
        "max_abs_logit_diff": float(np.abs(logits - baseline[LOGITS]).max()),
    }


def latencies(
    runners: dict[tuple[str, str], Runner], images: np.ndarray, batch: int, threads: int, seconds: float
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Time open runners at one batch, interleaved; the first is what all are compared with."""
    before = Moment.now()
    found, ticks = measure(list(runners.values()), images, batch, seconds, random.Random(0))
    rounds = [round_medians(one.samples) for one in found]
    rows = []
    for (name, backend), runner, one, medians in zip(runners, runners.values(), found, rounds, strict=True):
        against = ratio(rounds[0], medians)
        rows.append(
            {
                "name": name,
                "backend": backend,
                "batch": batch,
                "threads": threads,
                **summary(one.samples),
                "speedup_vs_eager": round(against.value, 3),
                "speedup_ci": [round(against.low, 3), round(against.high, 3)],
                "steady": one.steady,
                "phases_us": {k: round(v, 2) for k, v in phases(runner, images, batch).items()},
                "rounds_us": [round(float(us), 3) for us in medians],
            }
        )
    return rows, {"batch": batch} | watched(before, before, Moment.now(), threads, spread(round_medians(ticks)))


def sizes(release: Release, out: Path) -> dict[str, int]:
    """Return bytes of every file, side files included."""
    found = {name: sum((out / file).stat().st_size for file in files) for name, files in FILES.items()}
    return found | {f"hwr-export {m.precision}": m.size_bytes for m in release.by_role("onnx")}


def reach(times: dict[str, dict[str, Any]], cold: dict[str, Any]) -> dict[str, Any]:
    """Hold two figures against what was set out to be reached."""
    walls, cpu = ([times[n][key] for n in (OURS, FLOOR)] for key in ("wall_s", "cpu_s"))
    rss_mb = cold["peak_rss_mib"] * 1.048576
    return {
        "export_against_imports": {
            "wall": round(walls[0] / walls[1], 2),
            "cpu": round(cpu[0] / cpu[1], 2),
            "at_most": MAX_EXPORT_RATIO,
            "reached": walls[0] / walls[1] <= MAX_EXPORT_RATIO,
        },
        "torch_free_start": {
            **cold,
            "peak_rss_mb": round(rss_mb, 1),
            "at_most": {"cpu_s": MAX_CPU_S, "peak_rss_mb": MAX_RSS_MB},
            "reached": cold["cpu_s"] <= MAX_CPU_S and rss_mb <= MAX_RSS_MB,
        },
    }


def main(processes: int) -> None:
    try:
        versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    except importlib.metadata.PackageNotFoundError as err:
        sys.exit(f"{err.name} is not installed: pip install -r scripts/peers-requirements.txt")
    release = Release.open(ROOT / RELEASE)
    test = load_mnist("test")
    cells, watches, parity = [], [], []
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary)
        cold = start_up(ROOT / RELEASE, "onnxruntime", "fp32", 1, 5)
        times = exports(out, processes)
        everything = len(os.sched_getaffinity(0))
        batches_of = {1: BATCHES} | ({everything: BATCHES[-1:]} if everything > 1 else {})
        for threads in most_first(list(batches_of)):
            with on_processors(threads), ExitStack() as stack:
                runners = ours(release, threads) | peers(out, release.spec, threads)
                for runner in runners.values():
                    stack.enter_context(runner)
                if not parity:
                    baseline = next(iter(runners.values())).infer_all(test.images)
                    parity = [
                        {"name": name, "backend": backend, **judged(r, baseline, test.images, test.labels)}
                        for (name, backend), r in runners.items()
                    ]
                    hint = runners[OPENVINO, "openvino"].hint
                for batch in batches_of[threads]:
                    print(f"batch {batch}, {threads} thread(s)", file=sys.stderr)
                    rows, watch = latencies(runners, test.images, batch, threads, SECONDS)
                    cells += rows
                    watches.append(watch)
        document = {
            "schema": 1,
            "command": f"python scripts/bench_peers.py {processes}",
            "release": {"path": str(RELEASE), "manifest_sha256": release.manifest_sha256},
            "machine": machine_facts() | {"versions": versions, "openvino_default_precision": hint},
            "watches": watches,
            "timed": f"{TIMED}; a peer's pixels are normalised and its softmax taken by the caller in NumPy",
            "data": {"name": test.name, "n": len(test), "sha256": test.sha256},
            "exports": times,
            "size_bytes": sizes(release, out),
            "parity": parity,
            "cells": cells,
            "reach": reach(times, cold),
        }
    write_atomic(ROOT / "docs" / "figures" / "peers.json", json_bytes(document))


if __name__ == "__main__":
    match sys.argv[1:]:
        case []:
            main(3)
        case [processes] if processes.isdecimal() and int(processes):
            main(int(processes))
        case _:
            sys.exit(__doc__)
