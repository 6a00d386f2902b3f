"""A TensorRT plan on the GPU of this machine, for `tensorrt` and `tensorrt_rtx`: explicit buffers, no torch.

One CUDA graph a batch size holds copy in, execution and copy out; each has an execution context of its own, since a
graph keeps the addresses of its context's memory. Written from the API's documentation; not yet executed on a GPU.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import platformdirs

from hwr_export.errors import RunnerError
from hwr_export.files import sha256_bytes, write_atomic
from hwr_export.runners import Arrays, Runner
from hwr_export.runners.cuda import Cuda, Graph
from hwr_export.runners.trt_log import use_logger
from hwr_export.spec import INPUT, OUTPUTS, ModelSpec

RTX = "tensorrt_rtx"
MAGIC = {b"vtrt": RTX, b"ftrt": "tensorrt"}  # undocumented; looked at only to explain a refusal
GRAPHS_KEPT = 8  # batch sizes; the one unused for longest is dropped
SOURCE = "source_onnx_sha256"  # in the metadata: the hash that the builder put into the plan
NO_CUDA = "CUDA does not work here"
# What the log of a refusal says -> why. In this order: without a driver the last is always there too.
REASONS = (
    (("header.size == blobSize", "magicTag", "empty memory buffer"), "the plan is cut off or is none"),
    (("not compatible with this version", "Version tag does not match"), "it was built by another version"),
    (("incompatible device",), "it was built for another GPU"),
    (("cudaError", "CUDA initialization failure", "Cuda Runtime"), NO_CUDA),
)
ADVICE = {NO_CUDA: "see `hwr-export doctor`, and update the NVIDIA driver"}


def kernels_file(plan: bytes) -> Path:
    """Return where the kernels that TensorRT-RTX compiles for a plan are kept, in the user's cache."""
    return platformdirs.user_cache_path("hwr-export") / "kernels" / f"{sha256_bytes(plan)}.bin"


@dataclass(frozen=True)
class _Ready:
    """One batch size, ready to be launched. The context must live as long as the graph."""

    context: Any
    graph: Graph


class TrtRunner(Runner):
    """`cache` is a file for the kernels that TensorRT-RTX compiles on this machine; read if there, written on exit."""

    def __init__(
        self,
        plan: bytes,
        spec: ModelSpec,
        trt: ModuleType,
        cache: Path | None = None,
        outputs: Sequence[str] = OUTPUTS,
    ) -> None:
        super().__init__(spec, outputs=outputs)
        self.backend = self.package = trt.__name__
        self._plan = plan
        self._trt = trt
        self._cache = cache

    def version(self) -> str:
        return str(self._trt.__version__)

    def metadata(self) -> dict[str, str]:
        return {SOURCE: self._source}

    def device_memory_bytes(self) -> int | None:
        return self._free_before - self._cuda.free_bytes()

    def _open(self) -> None:
        self._log = use_logger(self._trt)
        self._ready: OrderedDict[int, _Ready] = OrderedDict()
        self._settings: Any = None
        self._kernels: Any = None
        with ExitStack() as opened:
            opened.callback(self._forget)
            self._cuda = opened.enter_context(Cuda())
            self._free_before = self._cuda.free_bytes()
            self._engine = engine = self._deserialised()
            self._source = str(engine.name)
            types = self._types(engine)
            self._profiles = [
                tuple(int(shape[0]) for shape in engine.get_tensor_profile_shape(INPUT, i))
                for i in range(engine.num_optimization_profiles)
            ]
            largest = min(self.spec.max_batch, max(p[2] for p in self._profiles))
            self.spec = self.spec.model_copy(update={"max_batch": largest})
            self._host = {
                name: self._cuda.pinned((largest, *tuple(engine.get_tensor_shape(name))[1:]), dtype)
                for name, dtype in types.items()
            }
            self._device = {name: self._cuda.device(array.nbytes) for name, array in self._host.items()}
            if self.backend == RTX:
                self._settings = self._rtx_settings(engine)
            self._opened = opened.pop_all()

    def _infer(self, inputs: Arrays) -> Arrays:
        n = len(inputs[INPUT])
        self._host[INPUT][:n] = inputs[INPUT]
        ready = self._ready.get(n) or self._prepare(n)
        self._ready.move_to_end(n)
        self._cuda.launch(ready.graph)
        self._cuda.synchronize()
        return {name: self._host[name][:n].copy() for name in self.outputs}

    def _phases(self, inputs: Arrays) -> dict[str, int]:
        """Time the parts by events on the stream, without the graph: `infer` is timed by the host, around both."""
        n = len(inputs[INPUT])
        self._host[INPUT][:n] = inputs[INPUT]
        context = (self._ready.get(n) or self._prepare(n)).context
        times = self._cuda.timed(self._work(context, n))
        return dict(zip(("copy_in", "compute", "copy_out"), times, strict=True))

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.backend == RTX and self._cache is not None and error is None:
            with self._opened:
                self._save_cache(self._cache)
        else:
            self._opened.__exit__(kind, error, trace)  # what frees must know that something has failed before

    def _forget(self) -> None:
        """Let go of TensorRT's objects, contexts first: they are freed with their last name."""
        self._ready.clear()
        self._settings = self._kernels = self._engine = self._runtime = None

    def _deserialised(self) -> Any:
        trt = self._trt
        try:
            self._runtime = runtime = trt.Runtime(self._log)
            engine = runtime.deserialize_cuda_engine(self._plan)
        except Exception as err:  # pybind raises TypeError where the library gives no object
            raise RunnerError(
                f"{self._name()} cannot start ({str(err).strip() or type(err).__name__}): {self._log.gist()}"
            ) from err
        if engine is None:
            raise RunnerError(f"{self._name()} does not load the plan: {self._refusal()}")
        return engine

    def _refusal(self) -> str:
        """Say why a plan was not taken, and with what words."""
        words = " ".join(self._log.errors)
        built_by = MAGIC.get(bytes(self._plan[:4]))
        if built_by and built_by != self.backend:
            why = f"it is a plan of {built_by}"
        else:
            why = next((why for signs, why in REASONS if any(s in words for s in signs)), "it gave no known reason")
        advice = ADVICE.get(why, "build it here: hwr-export trt RELEASE --native")
        return f"{why} ({self._log.gist()}); {advice}"

    def _types(self, engine: Any) -> dict[str, npt.DTypeLike]:
        """Return the type of each input and output.

        Raises:
            RunnerError: they are not those of the release.
        """
        trt = self._trt
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        inputs = [n for n in names if engine.get_tensor_mode(n) == trt.TensorIOMode.INPUT]
        outputs = [n for n in names if n not in inputs]
        types = {n: np.dtype(trt.nptype(engine.get_tensor_dtype(n))) for n in names}
        shape = tuple(engine.get_tensor_shape(INPUT))[1:] if inputs == [INPUT] else ()
        if shape != self.spec.image_shape or types[INPUT] != np.uint8 or set(self.outputs) - set(outputs):
            raise RunnerError(
                f"the plan reads {', '.join(inputs)} and gives {', '.join(outputs)}; expected {INPUT} uint8 "
                f"(N, {self.spec.image_shape[0]}, {self.spec.image_shape[1]}) and {', '.join(self.outputs)}"
            )
        return types

    def _rtx_settings(self, engine: Any) -> Any:
        """Have kernels compiled at once: compiled in the background they would change answers between two runs."""
        trt = self._trt
        settings = engine.create_runtime_config()
        eagerly = trt.DynamicShapesKernelSpecializationStrategy.EAGER
        settings.dynamic_shapes_kernel_specialization_strategy = eagerly
        self._kernels = kernels = settings.create_runtime_cache()
        if self._cache is not None and self._cache.is_file():
            kernels.deserialize(self._cache.read_bytes())  # a cache of another version is refused, and written anew
        if not settings.set_runtime_cache(kernels):
            raise RunnerError(f"{self._name()} takes no runtime cache: {self._log.gist()}")
        return settings

    def _save_cache(self, path: Path) -> None:
        kernels = self._kernels
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(path, bytes(kernels.serialize()))
        except OSError as err:
            raise RunnerError(f"the compiled kernels cannot be kept in {path}: {err.strerror}") from err

    def _prepare(self, n: int) -> _Ready:
        """Make the graph of a batch size. It runs once before: shapes settle, and TensorRT-RTX compiles its kernels."""
        if len(self._ready) == GRAPHS_KEPT:
            _, oldest = self._ready.popitem(last=False)
            self._cuda.forget(oldest.graph)
        engine, stream = self._engine, int(self._cuda.stream)
        context = engine.create_execution_context(*([self._settings] if self._settings else []))
        self._require(context is not None, "made no execution context")
        self._require(context.set_optimization_profile_async(self._profile(n), stream), "refused the profile")
        shape = (n, *self.spec.image_shape)
        self._require(context.set_input_shape(INPUT, shape), f"refused the input shape {shape}")
        for name, address in self._device.items():
            self._require(context.set_tensor_address(name, address), f"refused the buffer of {name}")

        def work() -> None:
            for part in self._work(context, n):
                part()

        work()
        self._cuda.synchronize()
        self._ready[n] = ready = _Ready(context, self._cuda.record(work))
        return ready

    def _work(self, context: Any, n: int) -> tuple[Callable[[], None], ...]:
        """Return what puts the copy in, the execution and the copies out on the stream."""

        def copy_out() -> None:
            for name in self._host:
                if name != INPUT:
                    self._cuda.copy_out(self._host[name][:n], self._device[name])

        return (
            lambda: self._cuda.copy_in(self._device[INPUT], self._host[INPUT][:n]),
            lambda: self._require(context.execute_async_v3(int(self._cuda.stream)), "did not execute"),
            copy_out,
        )

    def _profile(self, n: int) -> int:
        """Return the profile that takes a batch and is optimal nearest to it.

        Raises:
            RunnerError: none takes it.
        """
        fitting = [i for i, (least, _, most) in enumerate(self._profiles) if least <= n <= most]
        if not fitting:
            ranges = ", ".join(f"{least} to {most}" for least, _, most in self._profiles)
            raise RunnerError(f"no profile of the plan takes a batch of {n}: they take {ranges}")
        return min(fitting, key=lambda i: abs(self._profiles[i][1] - n))

    def _require(self, done: Any, what: str) -> None:
        if not done:
            raise RunnerError(f"{self._name()} {what}: {self._log.gist()}")

    def _name(self) -> str:
        return f"{self.backend} {self.version()}"
