"""CUDA through cuda-python: one stream, device and pinned memory, recorded graphs. Torch-free.

Every return code goes through `call`. A `Cuda` owns what it hands out and frees all of it on exit, after an error too.
"""

import ctypes
import importlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

from hwr_export.errors import RunnerError, UsageError

HINTS = {
    "cudaErrorMemoryAllocation": "close what else uses the GPU, or build for smaller batches",
    "cudaErrorInsufficientDriver": "there is no NVIDIA driver, or it is older than the CUDA of cuda-python; update the "
    "driver, or install the cuda-python of its CUDA, as `pip install 'cuda-python<13'` for JetPack 6",
    "cudaErrorNoDevice": "no NVIDIA GPU is visible; see CUDA_VISIBLE_DEVICES",
}


def load_cuda() -> ModuleType:
    """Import cuda-python's runtime.

    Raises:
        UsageError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except ImportError as err:
        raise UsageError(f"running a plan needs cuda-python ({err}): pip install 'cuda-python>=12.6.1'") from err


def call(cuda: ModuleType, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
    """Call CUDA and return what it gives beside its return code: nothing, a value or a tuple.

    Raises:
        RunnerError: any code but success; the message has CUDA's own words.
    """
    code, *values = function(*arguments)
    if code != cuda.cudaError_t.cudaSuccess:
        _, text = cuda.cudaGetErrorString(code)
        hint = f"; {HINTS[code.name]}" if code.name in HINTS else ""
        raise RunnerError(f"{function.__name__} failed: {text.decode()} ({code.name}, {int(code)}){hint}")
    if len(values) > 1:
        return tuple(values)
    return values[0] if values else None


@dataclass(frozen=True, eq=False)
class Graph:
    """What was recorded, ready to be launched."""

    handle: Any


class Cuda:
    """One stream and what is used on it. Use as a context manager."""

    def __init__(self) -> None:
        self._cuda = load_cuda()
        self._frees: dict[Any, Callable[[], None]] = {}

    def __enter__(self) -> Self:
        self.stream = self._call(self._cuda.cudaStreamCreate)
        self._own(self, self._cuda.cudaStreamDestroy, self.stream)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        problems = []
        while self._frees:
            _, free = self._frees.popitem()
            try:
                free()
            except RunnerError as err:
                problems.append(err)
        if problems and error is None:  # after an error CUDA may answer every call with that same one
            raise problems[0]

    def device(self, size_bytes: int) -> int:
        """Return the address of new device memory."""
        address = int(self._call(self._cuda.cudaMalloc, size_bytes))
        self._own(address, self._cuda.cudaFree, address)
        return address

    def pinned(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """Return an array on new page-locked host memory; it must not outlive this object."""
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        address = int(self._call(self._cuda.cudaMallocHost, size))
        self._own(address, self._cuda.cudaFreeHost, address)
        memory = memoryview((ctypes.c_uint8 * size).from_address(address))
        return np.frombuffer(memory, np.uint8).view(dtype).reshape(shape)

    def copy_in(self, device: int, host: npt.NDArray[Any]) -> None:
        """Put the copy of a pinned array to device memory on the stream."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call(self._cuda.cudaMemcpyAsync, device, host.ctypes.data, host.nbytes, kind, self.stream)

    def copy_out(self, host: npt.NDArray[Any], device: int) -> None:
        """Put the copy of device memory to a pinned array on the stream."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call(self._cuda.cudaMemcpyAsync, host.ctypes.data, device, host.nbytes, kind, self.stream)

    def timed(self, parts: Sequence[Callable[[], None]]) -> list[int]:
        """Let each part put its work on the stream and wait for all; return nanoseconds of each by the GPU's clock.

        The clock counts in half microseconds (CUDA runtime API, cudaEventElapsedTime).
        """
        cuda, events = self._cuda, list[Any]()
        try:
            for part in (*parts, None):
                events.append(self._call(cuda.cudaEventCreate))
                self._call(cuda.cudaEventRecord, events[-1], self.stream)
                if part is not None:
                    part()
            self.synchronize()
            return [round(1e6 * self._call(cuda.cudaEventElapsedTime, a, b)) for a, b in itertools.pairwise(events)]
        finally:
            for event in events:
                cuda.cudaEventDestroy(event)  # its code would hide the error of what was timed

    def free_bytes(self) -> int:
        """Return how much of the device's memory nobody uses."""
        free, _ = self._call(self._cuda.cudaMemGetInfo)
        return int(free)

    def synchronize(self) -> None:
        """Wait until all that is on the stream is done."""
        self._call(self._cuda.cudaStreamSynchronize, self.stream)

    def record(self, work: Callable[[], None]) -> Graph:
        """Record what `work` puts on the stream, without running it."""
        mode = self._cuda.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call(self._cuda.cudaStreamBeginCapture, self.stream, mode)
        try:
            work()
        except BaseException:
            code, unfinished = self._cuda.cudaStreamEndCapture(self.stream)  # fails where what is raised broke it off
            if code == self._cuda.cudaError_t.cudaSuccess:
                self._call(self._cuda.cudaGraphDestroy, unfinished)
            raise
        recorded = self._call(self._cuda.cudaStreamEndCapture, self.stream)
        try:
            graph = Graph(self._call(self._cuda.cudaGraphInstantiate, recorded, 0))
            self._own(graph, self._cuda.cudaGraphExecDestroy, graph.handle)
        finally:
            self._call(self._cuda.cudaGraphDestroy, recorded)
        return graph

    def launch(self, graph: Graph) -> None:
        """Put a recorded graph on the stream."""
        self._call(self._cuda.cudaGraphLaunch, graph.handle, self.stream)

    def forget(self, graph: Graph) -> None:
        """Free a graph before the rest."""
        self._frees.pop(graph)()

    def _call(self, function: Callable[..., tuple[Any, ...]], *arguments: Any) -> Any:
        return call(self._cuda, function, *arguments)

    def _own(self, key: Any, free: Callable[..., tuple[Any, ...]], handle: Any) -> None:
        def release() -> None:
            self._call(free, handle)

        self._frees[key] = release
