"""One small interface over every backend: a context manager whose `infer` maps names to arrays.

A runner refuses what the graph was not exported for (dtype, size, batch above the maximum) before the backend sees it,
and refuses to exist on a device other than the one it names.
"""

import importlib
import importlib.util
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, final

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from hwr_export.errors import RunnerError, UsageError
from hwr_export.spec import INPUT, OUTPUTS, ModelSpec

Arrays = dict[str, npt.NDArray[Any]]


@dataclass(frozen=True)
class Backend:
    """What executes an ONNX file: its class, the package and the extra that bring it, and what it needs of the machine.

    `computes` names the precision where it is not the file's; `options` go to the class.
    """

    runner: str
    package: str
    extra: str
    needs: Literal["", "an NVIDIA GPU", "bf16 arithmetic"] = ""
    computes: str | None = None
    options: dict[str, str] = field(default_factory=dict)


_ORT = "hwr_export.runners.onnxruntime:OnnxRuntimeRunner"
_OPENVINO = "hwr_export.runners.openvino:OpenVinoRunner"
# The provider TensorRT of ONNX Runtime builds its own engine when the file is loaded; ours are another backend.
ONNX_BACKENDS = {
    "onnxruntime": Backend(_ORT, "onnxruntime", "cpu"),
    "openvino": Backend(_OPENVINO, "openvino", "openvino"),
    "openvino-bf16": Backend(_OPENVINO, "openvino", "openvino", "bf16 arithmetic", "bf16", {"hint": "bf16"}),
    "onnxruntime-cuda": Backend(_ORT, "onnxruntime", "gpu", "an NVIDIA GPU", options={"provider": "CUDA"}),
    "onnxruntime-tensorrt": Backend(_ORT, "onnxruntime", "gpu", "an NVIDIA GPU", options={"provider": "Tensorrt"}),
    "onnxruntime-tensorrt-rtx": Backend(
        _ORT, "onnxruntime", "gpu", "an NVIDIA GPU", options={"provider": "NvTensorRTRTX"}
    ),
}


# Ways in which PyTorch may run a checkpoint -> the precision it computes in. The first is the baseline of everything.
EAGER = "eager"
VARIANTS = {EAGER: "fp32", "eager-channels-last": "fp32", "eager-bf16": "bf16", "torch-compile": "fp32"}

NO_BF16 = "this processor has no bf16 arithmetic"
NVIDIA_DRIVER = ("/proc/driver/nvidia/version", "/dev/nvhost-gpu")  # a desktop or server, a Jetson


class Runner(ABC):
    """A model on a backend. Use as a context manager; `infer` outside it is an error of the caller."""

    backend: str
    package: str

    def __init__(self, spec: ModelSpec, threads: int = 1, outputs: Sequence[str] = OUTPUTS) -> None:
        self.spec = spec
        self.threads = threads
        self.outputs = tuple(outputs)

    @final
    def infer(self, inputs: Arrays) -> Arrays:
        """Run one batch.

        Args:
            inputs: `image` uint8 (N, H, W), 1 <= N <= max_batch.

        Returns:
            `logits` and `probabilities`, float32 (N, classes); or the outputs that were asked for instead.

        Raises:
            RunnerError: an input the graph was not exported for, or the backend failed.
        """
        self._check(inputs)
        return self._infer(inputs)

    @final
    def infer_all(self, images: npt.NDArray[np.uint8], batch: int | None = None) -> Arrays:
        """Run any number of images in batches of `batch` (default max_batch) and join the outputs."""
        size = batch or self.spec.max_batch
        parts = [self.infer({INPUT: images[i : i + size]}) for i in range(0, len(images), size)]
        return {name: np.concatenate([p[name] for p in parts]) for name in self.outputs}

    @final
    def phases(self, inputs: Arrays) -> dict[str, int]:
        """Run one batch and return nanoseconds of the parts that can be timed apart, in order; else of `compute` alone.

        The parts are `copy_in`, `preprocess` (where it is not in the graph), `compute`, `copy_out`.
        """
        self._check(inputs)
        return self._phases(inputs)

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def version(self) -> str:
        """Return the version of the package that runs the model."""
        return str(importlib.import_module(self.package).__version__)

    def metadata(self) -> dict[str, str]:
        """Return what the model file says about itself; nothing where the backend cannot tell."""
        return {}

    def device_memory_bytes(self) -> int | None:
        """Return what it holds of an accelerator's memory; None where there is none, or it cannot be told."""
        return None

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _infer(self, inputs: Arrays) -> Arrays: ...

    def _phases(self, inputs: Arrays) -> dict[str, int]:
        start = time.perf_counter_ns()
        self._infer(inputs)
        return {"compute": time.perf_counter_ns() - start}

    def _close(self) -> None:  # noqa: B027  most backends free everything with the object
        pass

    def _check(self, inputs: Arrays) -> None:
        if set(inputs) != {INPUT}:
            raise RunnerError(f"the model takes the input {INPUT!r}, got {', '.join(sorted(inputs)) or 'none'}")
        image = inputs[INPUT]
        height, width = self.spec.image_shape
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[1:] != (height, width):
            raise RunnerError(
                f"{INPUT} must be uint8 (N, {height}, {width}), got {image.dtype} {tuple(image.shape)}; "
                "give raw pixels, preprocessing is in the graph"
            )
        if not 1 <= len(image) <= self.spec.max_batch:
            raise RunnerError(
                f"a batch of {len(image)} is outside 1 to {self.spec.max_batch}, which the graph was exported for; "
                "split it, or export with a larger --max-batch"
            )


def installed(backend: str) -> bool:
    """Return whether a backend's package can be found (not yet that it runs)."""
    return importlib.util.find_spec(ONNX_BACKENDS[backend].package) is not None


def why_absent(backend: str) -> str:
    """Return what a backend lacks on this machine, as a sentence's end; empty where nothing is seen to lack."""
    found = ONNX_BACKENDS[backend]
    if not installed(backend):
        return f"{found.package} is not installed: pip install 'hwr-export[{found.extra}]'"
    if found.needs == "an NVIDIA GPU" and not any(Path(p).exists() for p in NVIDIA_DRIVER):
        return "there is no NVIDIA GPU here (no driver is loaded)"
    if found.needs == "an NVIDIA GPU" and found.options["provider"] not in _providers():
        return f"the installed onnxruntime has no provider {found.options['provider']}"
    if found.needs == "bf16 arithmetic" and not has_bf16():
        return NO_BF16
    return ""


def _providers() -> set[str]:
    import onnxruntime

    return {name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()}


def has_bf16() -> bool:
    """Whether this processor computes in bf16; without, whoever asks for it gets it emulated, or not at all."""
    try:
        words = set(Path("/proc/cpuinfo").read_text().split())
    except OSError:
        return False
    return bool(words & {"avx512_bf16", "amx_bf16", "bf16"})


def onnx_runner(
    backend: str, model: bytes, spec: ModelSpec, threads: int = 1, outputs: Sequence[str] = OUTPUTS
) -> Runner:
    """Return a runner of ONNX bytes on a backend by name.

    Raises:
        UsageError: unknown backend, or this machine lacks what it needs.
    """
    if backend not in ONNX_BACKENDS:
        raise UsageError(f"there is no backend {backend!r}; known: {', '.join(ONNX_BACKENDS)}")
    if reason := why_absent(backend):
        raise UsageError(f"the backend {backend} cannot be used: {reason}")
    found = ONNX_BACKENDS[backend]
    module, _, name = found.runner.partition(":")
    runner: Runner = getattr(importlib.import_module(module), name)(model, spec, threads, outputs, **found.options)
    runner.backend = backend
    return runner


def reader_runner(model: bytes, spec: ModelSpec, threads: int = 1) -> Runner:
    """Return a runner on the first installed backend, for reading.

    Raises:
        UsageError: no backend is installed.
    """
    for backend in ONNX_BACKENDS:
        if not why_absent(backend):
            return onnx_runner(backend, model, spec, threads)
    raise UsageError("no runtime is installed: pip install 'hwr-export[cpu]'")
