"""One small interface over every backend: a context manager whose `infer` maps names to arrays.

A runner refuses what the graph was not exported for (dtype, size, batch above the maximum) before the backend sees it,
and refuses to exist on a device other than the one it names.
"""

import importlib
import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self, final

import numpy as np
import numpy.typing as npt

from hwr_export.errors import RunnerError, UsageError
from hwr_export.spec import INPUT, OUTPUTS, ModelSpec

Arrays = dict[str, npt.NDArray[Any]]

# Backends that execute an ONNX file on this machine: name -> (class, package to install, extra that brings it).
ONNX_BACKENDS = {
    "onnxruntime": ("hwr_export.runners.onnxruntime:OnnxRuntimeRunner", "onnxruntime", "cpu"),
    "openvino": ("hwr_export.runners.openvino:OpenVinoRunner", "openvino", "openvino"),
}


class Runner(ABC):
    """A model on a backend. Use as a context manager; `infer` outside it is an error of the caller."""

    backend: str

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

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._close()

    def version(self) -> str:
        """Return the version of the package that runs the model."""
        return str(importlib.import_module(self.backend).__version__)

    def metadata(self) -> dict[str, str]:
        """Return what the model file says about itself; nothing where the backend cannot tell."""
        return {}

    @abstractmethod
    def _open(self) -> None: ...

    @abstractmethod
    def _infer(self, inputs: Arrays) -> Arrays: ...

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
    return importlib.util.find_spec(ONNX_BACKENDS[backend][1]) is not None


def onnx_runner(
    backend: str, model: bytes, spec: ModelSpec, threads: int = 1, outputs: Sequence[str] = OUTPUTS
) -> Runner:
    """Return a runner of ONNX bytes on a backend by name.

    Raises:
        UsageError: unknown backend, or its package is not installed.
    """
    if backend not in ONNX_BACKENDS:
        raise UsageError(f"there is no backend {backend!r}; known: {', '.join(ONNX_BACKENDS)}")
    target, package, extra = ONNX_BACKENDS[backend]
    if not installed(backend):
        raise UsageError(f"the backend {backend} needs the package {package}: pip install 'hwr-export[{extra}]'")
    module, _, name = target.partition(":")
    runner: Runner = getattr(importlib.import_module(module), name)(model, spec, threads, outputs)
    return runner


def reader_runner(model: bytes, spec: ModelSpec, threads: int = 1) -> Runner:
    """Return a runner on the first installed backend, for reading.

    Raises:
        UsageError: no backend is installed.
    """
    for backend in ONNX_BACKENDS:
        if installed(backend):
            return onnx_runner(backend, model, spec, threads)
    raise UsageError("no runtime is installed: pip install 'hwr-export[cpu]'")
