"""What is installed, and which of it really runs: every backend answers a small model, on the device it claims."""

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

import numpy as np

import hwr_export
from hwr_export.engine.build import engine_from_onnx
from hwr_export.engine.device import l4t_release
from hwr_export.engine.options import release_profiles
from hwr_export.engine.products import DEFAULT_TARGETS, PRODUCTS, load_product
from hwr_export.engine.targets import NATIVE, ProductName
from hwr_export.errors import HwrError, RunnerError
from hwr_export.files import sha256_bytes
from hwr_export.machine import machine_facts
from hwr_export.runners import ONNX_BACKENDS, installed, onnx_runner
from hwr_export.spec import INPUT, LOGITS, ModelSpec, Preprocessing

PACKAGES = {  # distribution -> the extra that brings it; "" for the base install
    "numpy": "",
    "pillow": "",
    "torch": "export",
    "torchvision": "export",
    "onnx": "export",
    "onnxscript": "export",
    "onnxruntime": "cpu",
    "onnxruntime-gpu": "gpu",
    "openvino": "openvino",
    "tensorrt-rtx": "rtx",
    "tensorrt": "trt",
}
PROBE_SPEC = ModelSpec(labels="01", preprocessing=Preprocessing(height=4, width=4), max_batch=8, parameters=0)
# Providers that send the model to a service instead of running it here.
REMOTE_PROVIDERS = {"AzureExecutionProvider"}


def examine() -> dict[str, Any]:
    """Return what is installed and what runs; `ok` is False if anything installed does not do what it claims."""
    packages = [{"package": name, "version": _version(name), "extra": extra} for name, extra in PACKAGES.items()]
    present = {p["package"] for p in packages if p["version"]}
    backends = [
        _backend("eager", "torch" in present, "export", _try_eager),
        *_onnxruntime(),
        *(
            _backend(name, installed(name), found.extra, _runner_check(name))
            for name, found in ONNX_BACKENDS.items()
            if name != "onnxruntime" and not found.needs
        ),
        *(_backend(name, _found(name), extra, _builder_check(name)) for name, extra in PRODUCTS.items()),
    ]
    problems = [f"{b['backend']}: {b['detail']}" for b in backends if b["status"] == "fails"]
    if {"onnxruntime", "onnxruntime-gpu"} <= present:
        problems.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's module: uninstall both, "
            "then install one"
        )
    return {
        "schema": 1,
        "hwr_export": hwr_export.__version__,
        "ok": not problems,
        "problems": problems,
        "packages": packages,
        "backends": backends,
        "device": machine_facts() | {"gpu": _gpus(), "jetson": l4t_release()},
    }


def probe_model() -> bytes:
    """Return the bundled model of `scripts/make_probe.py`."""
    return files("hwr_export").joinpath("probe.onnx").read_bytes()


def probe_images() -> "np.ndarray[Any, np.dtype[np.uint8]]":
    return np.random.default_rng(1).integers(0, 256, (3, 4, 4)).astype(np.uint8)


def check_probe(logits: "np.ndarray[Any, Any]") -> None:
    """Compare with what the probe computes by definition.

    Raises:
        RunnerError: another answer.
    """
    ink = probe_images().reshape(3, 16).sum(axis=1) / 255
    difference = float(np.abs(logits - np.stack([ink, 8 - ink], axis=1)).max())
    if not difference < 1e-4:
        raise RunnerError(f"it runs and answers wrongly (difference {difference:.3g} on the probe)")


def _backend(name: str, present: bool, extra: str, check: Callable[[], str]) -> dict[str, str]:
    if not present:
        return {"backend": name, "status": "absent", "detail": "", "fix": f"pip install 'hwr-export[{extra}]'"}
    try:
        return {"backend": name, "status": "runs", "detail": check(), "fix": ""}
    except HwrError as err:
        return {"backend": name, "status": "fails", "detail": str(err), "fix": f"pip install 'hwr-export[{extra}]'"}
    except Exception as err:  # a broken install may raise anything at import; that is what doctor is for
        return {
            "backend": name,
            "status": "fails",
            "detail": f"{type(err).__name__}: {err}",
            "fix": f"pip install --force-reinstall 'hwr-export[{extra}]'",
        }


def _try_eager() -> str:
    import torch

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU (no CUDA device)"
    if float(torch.ones(2).sum()) != 2.0:
        raise RunnerError("torch adds wrongly")
    return f"torch {torch.__version__} on {device}"


def _onnxruntime() -> list[dict[str, str]]:
    """Try every execution provider that the installed ONNX Runtime lists."""
    if not installed("onnxruntime"):
        return [_backend("onnxruntime", False, "cpu", str)]
    import onnxruntime

    providers = [p for p in onnxruntime.get_available_providers() if p not in REMOTE_PROVIDERS]

    def check_of(provider: str) -> Callable[[], str]:
        def check() -> str:
            from hwr_export.runners.onnxruntime import open_session

            session = open_session(probe_model(), provider, threads=1)
            check_probe(session.run([LOGITS], {INPUT: probe_images()})[0])
            return f"onnxruntime {onnxruntime.__version__} on {provider}"

        return check

    return [
        _backend(
            f"onnxruntime/{p.removesuffix('ExecutionProvider')}",
            True,
            "cpu" if p.startswith("CPU") else "gpu",
            check_of(p),
        )
        for p in providers
    ]


def _runner_check(backend: str) -> Callable[[], str]:
    def check() -> str:
        with onnx_runner(backend, probe_model(), PROBE_SPEC) as runner:
            check_probe(runner.infer({INPUT: probe_images()})[LOGITS])
            return f"{backend} {runner.version()} on CPU"

    return check


def _builder_check(name: ProductName) -> Callable[[], str]:
    def check() -> str:
        target = NATIVE if name == "tensorrt" else DEFAULT_TARGETS[-1]
        product = load_product(name, [target])
        model = probe_model()
        plan = engine_from_onnx(model, product, [target], sha256_bytes(model), release_profiles(PROBE_SPEC))
        return f"{name} {product.version}: built {len(plan.data):,} bytes for {target}, not executed"

    return check


def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _version(distribution: str) -> str | None:
    try:
        return version(distribution)
    except PackageNotFoundError:
        return None


def _gpus() -> list[str]:
    """Return NVIDIA's own list of GPUs, driver and compute capability; empty where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name,driver_version,compute_cap", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip().splitlines() if done.returncode == 0 else []
