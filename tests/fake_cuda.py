"""`cuda.bindings.runtime` with host memory standing for device memory: it knows only the names that the runner uses.

What is put on a stream is done when the stream is waited for, not before; what is recorded is done when launched. A
fault is the code that the n-th call of a function answers with. `live` is what was not freed.
"""

import ctypes
import time
from collections.abc import Callable
from enum import IntEnum
from types import ModuleType, SimpleNamespace


class cudaError_t(IntEnum):
    cudaSuccess = 0
    cudaErrorInvalidValue = 1
    cudaErrorMemoryAllocation = 2
    cudaErrorInsufficientDriver = 35
    cudaErrorNoDevice = 100
    cudaErrorIllegalAddress = 700
    cudaErrorStreamCaptureInvalidated = 901


class cudaMemcpyKind(IntEnum):
    cudaMemcpyHostToDevice = 1
    cudaMemcpyDeviceToHost = 2


class cudaStreamCaptureMode(IntEnum):
    cudaStreamCaptureModeThreadLocal = 1


WORDS = {
    cudaError_t.cudaErrorMemoryAllocation: b"out of memory",
    cudaError_t.cudaErrorInsufficientDriver: b"CUDA driver version is insufficient for CUDA runtime version",
    cudaError_t.cudaErrorNoDevice: b"no CUDA-capable device is detected",
    cudaError_t.cudaErrorIllegalAddress: b"an illegal memory access was encountered",
}
Work = Callable[[], None]


class FakeCuda(ModuleType):
    """One GPU. `faults` maps a function to (code, at which of its calls)."""

    def __init__(self, faults: dict[str, tuple[cudaError_t, int]] | None = None) -> None:
        super().__init__("cuda.bindings.runtime")
        self._faults = faults or {}
        self._calls: dict[str, int] = {}
        self.live: dict[int, tuple[str, object]] = {}  # handle -> what it is, what keeps it
        self._graphs: dict[int, list[Work]] = {}
        self._queue: list[Work] = []
        self._recording: list[Work] | None = None
        self._times: dict[int, float] = {}
        self.memory = 1 << 30
        self.launches = 0
        self.device = {"name": b"Fake GPU", "major": 8, "minor": 7}
        self.driver_version = 12060
        self.cudaError_t, self.cudaMemcpyKind, self.cudaStreamCaptureMode = (
            cudaError_t,
            cudaMemcpyKind,
            cudaStreamCaptureMode,
        )
        for name in [n for n in dir(type(self)) if n.startswith("cuda")]:
            setattr(self, name, self._faulty(name, getattr(self, name)))

    def put(self, work: Work) -> None:
        """Put work on the stream, or on what is being recorded."""
        (self._queue if self._recording is None else self._recording).append(work)

    def kinds(self) -> list[str]:
        """Return what is still live."""
        return sorted(kind for kind, _ in self.live.values())

    def cudaGetErrorString(self, code: cudaError_t) -> tuple:
        return cudaError_t.cudaSuccess, WORDS.get(code, code.name.encode())

    def cudaGetDeviceProperties(self, number: int) -> tuple:
        return cudaError_t.cudaSuccess, SimpleNamespace(**self.device)

    def cudaDriverGetVersion(self) -> tuple:
        return cudaError_t.cudaSuccess, self.driver_version

    def cudaStreamCreate(self) -> tuple:
        return cudaError_t.cudaSuccess, self._new("stream", 64)

    def cudaStreamDestroy(self, stream: int) -> tuple:
        return self._free(stream, "stream")

    def cudaStreamSynchronize(self, stream: int) -> tuple:
        assert self._recording is None, "waiting for a stream that is being recorded is an error in CUDA"
        queue, self._queue = self._queue, []
        for work in queue:
            work()
        return (cudaError_t.cudaSuccess,)

    def cudaEventCreate(self) -> tuple:
        return cudaError_t.cudaSuccess, self._new("event", 8)

    def cudaEventDestroy(self, event: int) -> tuple:
        return self._free(event, "event")

    def cudaEventRecord(self, event: int, stream: int) -> tuple:
        self.put(lambda: self._times.__setitem__(event, time.perf_counter()))
        return (cudaError_t.cudaSuccess,)

    def cudaEventElapsedTime(self, start: int, end: int) -> tuple:
        return cudaError_t.cudaSuccess, 1e3 * (self._times[end] - self._times[start])

    def cudaMemGetInfo(self) -> tuple:
        used = sum(len(keeps) for kind, keeps in self.live.values() if kind == "device")  # type: ignore[arg-type]
        return cudaError_t.cudaSuccess, self.memory - used, self.memory

    def cudaMalloc(self, size: int) -> tuple:
        return cudaError_t.cudaSuccess, self._new("device", size)

    def cudaFree(self, address: int) -> tuple:
        return self._free(address, "device")

    def cudaMallocHost(self, size: int) -> tuple:
        return cudaError_t.cudaSuccess, self._new("pinned", size)

    def cudaFreeHost(self, address: int) -> tuple:
        return self._free(address, "pinned")

    def cudaMemcpyAsync(self, target: int, source: int, size: int, kind: cudaMemcpyKind, stream: int) -> tuple:
        ends = {
            cudaMemcpyKind.cudaMemcpyHostToDevice: ("device", "pinned"),
            cudaMemcpyKind.cudaMemcpyDeviceToHost: ("pinned", "device"),
        }[kind]
        for address, wanted in zip((target, source), ends, strict=True):
            if self.live.get(address, ("",))[0] != wanted:
                return (cudaError_t.cudaErrorInvalidValue,)
        self.put(lambda: ctypes.memmove(target, source, size) and None)
        return (cudaError_t.cudaSuccess,)

    def cudaStreamBeginCapture(self, stream: int, mode: cudaStreamCaptureMode) -> tuple:
        self._recording = []
        return (cudaError_t.cudaSuccess,)

    def cudaStreamEndCapture(self, stream: int) -> tuple:
        recorded, self._recording = self._recording, None
        handle = self._new("graph", 8)
        self._graphs[handle] = list(recorded or [])
        return cudaError_t.cudaSuccess, handle

    def cudaGraphInstantiate(self, graph: int, flags: int) -> tuple:
        handle = self._new("executable", 8)
        self._graphs[handle] = self._graphs[graph]
        return cudaError_t.cudaSuccess, handle

    def cudaGraphDestroy(self, graph: int) -> tuple:
        return self._free(graph, "graph")

    def cudaGraphExecDestroy(self, graph: int) -> tuple:
        return self._free(graph, "executable")

    def cudaGraphLaunch(self, graph: int, stream: int) -> tuple:
        self.launches += 1
        self._queue.extend(self._graphs[graph])
        return (cudaError_t.cudaSuccess,)

    def _faulty(self, name: str, function: Callable[..., tuple]) -> Callable[..., tuple]:
        def called(*arguments: object) -> tuple:
            self._calls[name] = self._calls.get(name, 0) + 1
            code, at = self._faults.get(name, (cudaError_t.cudaSuccess, 0))
            if self._calls[name] == at:
                return code, None
            return function(*arguments)

        called.__name__ = name
        return called

    def _new(self, kind: str, size: int) -> int:
        keeps = ctypes.create_string_buffer(max(1, size))
        self.live[ctypes.addressof(keeps)] = kind, keeps
        return ctypes.addressof(keeps)

    def _free(self, handle: int, kind: str) -> tuple:
        if self.live.get(handle, ("",))[0] != kind:
            return (cudaError_t.cudaErrorInvalidValue,)
        del self.live[handle]
        self._graphs.pop(handle, None)
        return (cudaError_t.cudaSuccess,)
