"""What an NVIDIA machine, with torch or without, does with this project -> one JSON: each step ok, failed or absent.

Every step is a command of the project in a process of its own, so that none can take another along. It is absent, with
the reason, where what it needs is not there; a failure is never an absence. Exit code 1 where a step failed, 0 where
none did and something ran on a GPU, else 3. Only the standard library is imported here.
"""

import argparse
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "exported" / "digits"
RECIPE = "train/recipes/digits-edge-demo.yaml"
L4T = Path("/etc/nv_tegra_release")
STEP_SECONDS = 1800
PYTHON = "python"  # stands for this interpreter in the commands that are recorded
TRACKED = ("torch", "onnx", "onnxruntime", "tensorrt", "cuda-", "nvidia-", "numpy", "hwr")
PROVIDERS = {  # backend -> ONNX Runtime's name of it
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
    "onnxruntime-tensorrt-rtx": "NvTensorRTRTXExecutionProvider",
}
QUERY = "name,driver_version,compute_cap,memory.total,power.limit,clocks.max.sm,clocks.sm,temperature.gpu"
JETSON_TOOLS = {  # what -> command, seconds that it may take (tegrastats never ends)
    "power_mode": (["nvpmodel", "-q"], 30),
    "clocks": (["jetson_clocks", "--show"], 30),
    "tegrastats": (["tegrastats", "--interval", "500"], 3),
}


@dataclass
class Step:
    """`on_gpu`: its success is one of the GPU. `absent`: why it cannot be tried, or empty. `needs`: a step before."""

    name: str
    command: list[str]
    on_gpu: bool = True
    absent: str = ""
    needs: str = ""
    prints_json: bool = True
    must_say: str = ""  # on stderr, or the step has not done what it was for
    status: str = ""
    reason: str = ""
    seconds: float = 0.0
    result: Any = field(default=None)


@dataclass(frozen=True)
class Here:
    """What was found on this machine; an empty reason stands for: it is there."""

    no_gpu: str
    no_torch: str
    no_cuda_torch: str
    no_onnxruntime: str
    providers: tuple[str, ...]


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    arguments.add_argument("-o", "--out", type=Path, default=Path("gpu_check.json"), help="JSON to write")
    arguments.add_argument("--jetson", action="store_true", help="record power mode and clocks; TensorRT alone builds")
    asked = arguments.parse_args()
    if not os.access(asked.out.resolve().parent, os.W_OK):  # found now, and not after the last step
        arguments.error(f"{asked.out} cannot be written; name another place with -o")
    here = look_around(asked.jetson)
    document: dict[str, Any] = {
        "schema": 1,
        "kind": "jetson" if asked.jetson else "gpu",
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions(),
        "gpu": gpus(),
    }
    if asked.jetson:
        document["jetson"] = {"before": jetson_facts()}
    with tempfile.TemporaryDirectory(prefix="gpu-check-") as folder:
        steps = list(plan_steps(here, Path(folder), asked.jetson))
        run_all(steps)
    if asked.jetson:
        document["jetson"]["after"] = jetson_facts()
    document["verdict"], code = verdict(steps)
    document["steps"] = [{k: v for k, v in asdict(s).items() if k not in ("absent", "must_say")} for s in steps]
    temporary = asked.out.with_name(f".{asked.out.name}.part")
    temporary.write_text(json.dumps(document, indent=2) + "\n")
    temporary.replace(asked.out)
    print(f"{document['verdict']}; written to {asked.out}")
    return code


# -- what is here ----------------------------------------------------------------------------------------------------


def look_around(jetson: bool) -> Here:
    no_gpu = _no_gpu(jetson)
    no_torch = "" if importlib.util.find_spec("torch") else "torch is not installed"
    no_cuda_torch = no_torch or no_gpu
    if (
        not no_cuda_torch
        and not _printed([PYTHON, "-c", "import torch; print(torch.cuda.is_available() or '')"]).strip()
    ):
        no_cuda_torch = "torch sees no CUDA device"
    no_onnxruntime = "" if importlib.util.find_spec("onnxruntime") else "onnxruntime is not installed"
    listed = "import onnxruntime; print(' '.join(onnxruntime.get_available_providers()))"
    providers = () if no_onnxruntime else tuple(_printed([PYTHON, "-c", listed]).split())
    return Here(no_gpu, no_torch, no_cuda_torch, no_onnxruntime, providers)


def _no_gpu(jetson: bool) -> str:
    if jetson:
        return "" if L4T.is_file() else f"this is no Jetson: {L4T} is not there"
    if shutil.which("nvidia-smi") is None:
        return "there is no NVIDIA GPU here, or no driver: nvidia-smi is not installed"
    return "" if _printed(["nvidia-smi", "-L"]).strip() else "nvidia-smi lists no GPU"


def machine() -> dict[str, Any]:
    """Describe the machine without naming it."""
    model = Path("/proc/device-tree/model")
    return {
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "board": model.read_text().rstrip("\0") if model.is_file() else None,
    }


def versions() -> dict[str, str]:
    """Return the versions of what computes, by the name of its distribution."""
    found = {d.metadata["Name"]: d.version for d in distributions()}
    return {name: found[name] for name in sorted(found) if name.lower().startswith(TRACKED)}


def gpus() -> list[dict[str, str]]:
    rows = _printed(["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader"]).splitlines()
    return [dict(zip(QUERY.split(","), (cell.strip() for cell in row.split(",")), strict=False)) for row in rows]


def jetson_facts() -> dict[str, Any]:
    facts: dict[str, Any] = {"l4t": L4T.read_text().splitlines()[0] if L4T.is_file() else None}
    for what, (command, seconds) in JETSON_TOOLS.items():
        if shutil.which(command[0]) is None:
            facts[what] = {"status": "absent", "reason": f"{command[0]} is not installed"}
            continue
        code, out, err = _run(command, seconds)
        if out.strip():
            facts[what] = {"status": "ok", "lines": out.strip().splitlines()[-20:]}
        else:
            facts[what] = {"status": "failed", "reason": err.strip()[-300:] or f"exit code {code}, and nothing printed"}
    return facts


# -- what is done ----------------------------------------------------------------------------------------------------


def plan_steps(here: Here, work: Path, jetson: bool) -> Iterator[Step]:
    """Yield the steps in order. What is trained here proves training; GPUs are tried with the committed release."""
    hwr, train = [PYTHON, "-m", "hwr_export"], [PYTHON, "-m", "train"]
    yield Step("doctor", [*hwr, "doctor", "--json"], on_gpu=False)
    if not here.no_torch:
        yield Step("fetch", [*train, "fetch", "mnist"], on_gpu=False, prints_json=False)
    # Without these words the loop has taken the CPU.
    fit = [*train, "fit", RECIPE, "-o", str(work / "run")]
    yield Step("train", fit, absent=here.no_cuda_torch, prints_json=False, must_say="parameters on cuda")
    own = str(work / "trained")
    for name, command, needs in (
        ("export", ["onnx", str(work / "run"), "-o", own, "--precision", "fp16"], "train"),
        ("quantize", ["quantize", own, "--json"], "export"),
        ("export/parity", ["parity", own, "--json"], "export"),
    ):
        yield Step(name, [*hwr, *command], False, here.no_cuda_torch, needs, prints_json="--json" in command)
    reference = str(work / "digits")
    shutil.copytree(REFERENCE, reference, ignore=shutil.ignore_patterns("engines"))
    # 250 goldens exclude no smaller loss than about 1.1 points: less would leave int8 undecided, and a step failed.
    margin = ["--margin", "1.5"]
    baseline = ["--baseline", "goldens", *margin] if here.no_torch else []
    for backend, provider in PROVIDERS.items():
        missing = here.no_gpu or here.no_onnxruntime
        if not missing and provider not in here.providers:
            missing = f"this onnxruntime has no {provider}; that of 'hwr-export[gpu]' has the first two, [cpu] has none"
        chosen = [reference, "--backend", backend, "--json"]
        yield Step(f"{backend}/parity", [*hwr, "parity", *chosen, *baseline], absent=missing)
        yield Step(f"{backend}/bench", [*hwr, "bench", *chosen, "--seconds", "1"], absent=missing)
    for product in ("tensorrt",) if jetson else ("tensorrt_rtx", "tensorrt"):
        missing = "" if importlib.util.find_spec(product) else f"{product} is not installed"
        build = [*hwr, "trt", reference, "--product", product, "--json"]
        if product == "tensorrt_rtx":
            yield Step(f"{product}/build", build, on_gpu=False, absent=missing)
        missing = missing or here.no_gpu
        yield Step(f"{product}/native", [*build, "--native", *margin], absent=missing)
        compare = [*hwr, "parity", reference, "--backend", product, "--json", *baseline]
        yield Step(f"{product}/parity", compare, absent=missing)
        measure = [*hwr, "bench", reference, "--backend", product, "--seconds", "1", "--json"]
        yield Step(f"{product}/bench", measure, absent=missing)


def run_all(steps: list[Step]) -> None:
    for step in steps:
        before = next((s for s in steps if s.name == step.needs), None)
        step.reason = step.absent or (f"{step.needs} is {before.status}" if before and before.status != "ok" else "")
        if step.reason:
            step.status = "absent"
        else:
            run(step)
        print(f"{step.status:7} {step.name}{f': {step.reason}' if step.reason else ''}", flush=True)


def run(step: Step) -> None:
    started = time.monotonic()
    code, out, err = _run(step.command, STEP_SECONDS)
    step.seconds = round(time.monotonic() - started, 1)
    try:
        step.result = json.loads(out) if out.strip() and step.prints_json else None
    except ValueError:
        code = code or 1
        err += f"\nit did not print JSON: {out[:200]}"
    if code is None:
        step.reason = f"it did not end within {STEP_SECONDS} s"
    elif code < 0:
        step.reason = f"it was killed by signal {-code}"
    elif code:
        undecided = " (undecided)" if code == 3 else ""
        step.reason = f"exit code {code}{undecided}: {' '.join(err.split())[-600:]}"
    elif step.must_say not in " ".join(err.split()):
        step.reason = f"it did not say {step.must_say!r}: {' '.join(err.split())[-600:]}"
    step.status = "failed" if step.reason else "ok"


def verdict(steps: list[Step]) -> tuple[str, int]:
    """Return what to say, and the exit code."""
    failed = [step.name for step in steps if step.status == "failed"]
    ran = [step.name for step in steps if step.status == "ok" and step.on_gpu]
    if failed:
        return f"FAIL: {', '.join(failed)}", 1
    if not ran:
        return "UNDECIDED: nothing ran on a GPU", 3
    return f"PASS: {', '.join(ran)}", 0


def _run(command: list[str], seconds: float) -> tuple[int | None, str, str]:
    """Return exit code (None: it did not end in time), stdout and stderr."""
    words = [sys.executable if word == PYTHON else word for word in command]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}  # this checkout, whichever is installed
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=False, cwd=ROOT, env=environment, timeout=seconds
        )
    except subprocess.TimeoutExpired as err:
        return None, _text(err.stdout), _text(err.stderr)
    except OSError as err:
        return 127, "", str(err)
    return done.returncode, done.stdout, done.stderr


def _text(output: Any) -> str:
    return output.decode(errors="replace") if isinstance(output, bytes) else output or ""


def _printed(command: list[str]) -> str:
    """Return what a command prints, nothing where it fails."""
    code, out, _ = _run(command, 120) if command[0] == PYTHON or shutil.which(command[0]) else (1, "", "")
    return out if code == 0 else ""


if __name__ == "__main__":
    sys.exit(main())
