"""The TensorRT module of 10.3.0, 11.4.0 or RTX 1.7.1 without TensorRT: it knows only names of `trt_api.json`.

Any other name raises AttributeError, as one does that the product lacks. Its plan is the ONNX file behind a header and
it "executes" by ONNX Runtime on the CPU, so that answers are real; **nothing here ran on a GPU**. Faults are by name,
one for each step that can refuse; what the log says of them are lines that TensorRT has been seen to write.
"""

import ctypes
import json
import os
import signal
import struct
from collections.abc import Collection
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime

from hwr_export.engine.targets import RTX_CAPABILITIES
from hwr_export.qdq import quantized_layers
from tests.fake_cuda import FakeCuda

TABLE: dict[str, dict[str, bool]] = json.loads((Path(__file__).parent / "trt_api.json").read_text())
MAGIC = {"tensorrt": b"ftrt", "tensorrt_rtx": b"vtrt"}
HEADER = 64
TYPES = {"tensor(uint8)": "UINT8", "tensor(float)": "FLOAT", "tensor(float16)": "HALF"}
NUMPY = {"UINT8": np.uint8, "FLOAT": np.float32, "HALF": np.float16}
LOADING = "IRuntime::deserializeCudaEngine: Error Code"
CONTEXT = "IExecutionContext::"
LOG = {
    "driver": f"{LOADING} 1: Cuda Runtime (In ScopedCudaStream at cudaResources.cpp:25 (cudaError 35: CUDA driver "
    "version is insufficient for CUDA runtime version))",
    "version": f"{LOADING} 6: API Usage Error (The engine plan file is not compatible with this version of TensorRT, "
    "expecting library version 10.3.0.30 got 10.9.0.34, please rebuild.)",
    "device": f"{LOADING} 6: API Usage Error (The engine plan file is generated on an incompatible device, expecting "
    "compute 8.9 got compute 8.6, please rebuild.)",
    "magic": f"{LOADING} 1: Serialization (Serialization assertion header.magicTag == kEXPECTED_MAGIC_TAG failed.)",
    "cut off": f"{LOADING} 1: Serialization (Serialization assertion plan.header.size == blobSize failed.)",
    "build": "Error Code 10: Internal Error (Could not find any implementation for node {ForeignNode[conv2d]}.)",
    "memory": "Error Code 2: OutOfMemory (Requested size was 1073741824 bytes.)",
    "context": f"{CONTEXT}IExecutionContext: Error Code 2: OutOfMemory (Requested size was 4096 bytes.)",
    "profile": f"{CONTEXT}setOptimizationProfileAsync: Error Code 3: API Usage Error",
    "shape": f"{CONTEXT}setInputShape: Error Code 3: API Usage Error (Runtime dimension does not satisfy any profile.)",
    "address": f"{CONTEXT}setTensorAddress: Error Code 3: API Usage Error",
    "execute": f"{CONTEXT}enqueueV3: Error Code 1: Cuda Driver (launch failed)",
}
FAULTS = {*LOG, "parse", "raises", "interrupt", "runtime", "answers", "cache", "inspector", "in float"}


class Member(int):
    """A value of an enumeration; it equals itself alone."""

    def __new__(cls, number: int, name: str) -> "Member":
        made = int.__new__(cls, number)
        made.label = name
        return made


def known(version: str, holder: str) -> list[str]:
    """Return the names that a class has in a version."""
    if holder == "ComputeCapability":  # its members are asked for by name, which no table of our code can hold
        return [capability.upper() for capability in RTX_CAPABILITIES] if TABLE[holder][version] else []
    prefix = f"{holder}."
    return [name.removeprefix(prefix) for name, has in TABLE.items() if name.startswith(prefix) and has[version]]


class Named:
    """An object of TensorRT's: its public names are those of the table, and every use of one is written down.

    A method that is real and has no meaning here answers True.
    """

    def __init__(self, trt: "FakeTrt", holder: str) -> None:
        self._trt, self._holder = trt, holder
        self._values: dict[str, Any] = {}

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("_"):
            object.__getattribute__(self, "_check")(name)
        return object.__getattribute__(self, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        self._check(name)  # Python asks here too after an AttributeError
        return self._values.get(name, lambda *_: True)

    def __setattr__(self, name: str, value: Any) -> None:
        if name.startswith("_"):
            object.__setattr__(self, name, value)
        else:
            self._check(name)
            self._values[name] = value

    def _check(self, name: str) -> None:
        if name not in known(self._trt._version, self._holder):
            raise AttributeError(f"{self._trt._version}: {self._holder} has no {name!r}")
        self._trt._calls.append(f"{self._holder}.{name}")


class Enumeration(Named):
    def __getattr__(self, name: str) -> Member:
        if name.startswith("_"):
            raise AttributeError(name)
        self._check(name)
        return Member(known(self._trt._version, self._holder).index(name) + 1, name)


class FakeTrt(ModuleType):
    """One product in one version, on the GPU of a fake CUDA."""

    def __init__(self, version: str, cuda: FakeCuda, faults: Collection[str] = ()) -> None:
        name, _, number = version.partition("-")
        super().__init__(name)
        assert set(faults) <= FAULTS
        self.__version__ = f"{number}.0"
        self._version, self._cuda, self._faults = version, cuda, set(faults)
        self._calls: list[str] = []
        self._logger: Any = None
        self._contexts = 0

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or not any(
            has[self._version] for key, has in TABLE.items() if key.split(".")[0] == name
        ):
            raise AttributeError(f"{self._version} has no {name!r}")
        makers = {"Builder": Builder, "OnnxParser": OnnxParser, "Runtime": Runtime}
        if name in makers:
            return lambda *arguments: makers[name](self, *arguments)
        if name in ("ILogger", "IProgressMonitor"):
            members = {m: Member(i, m) for i, m in enumerate(known(self._version, name)) if m.isupper()}
            made = type(name, (), members)
            setattr(self, name, made)
            return made
        if name == "nptype":
            return lambda kind: NUMPY[kind.label]
        return Enumeration(self, name)

    def _register(self, logger: Any) -> None:
        """One logger a process: the first."""
        self._logger = self._logger or logger

    def _fails(self, fault: str) -> bool:
        """Return whether to fail here; the log then says what the real one does."""
        if fault in self._faults and fault in LOG:
            self._log(LOG[fault])
        return fault in self._faults

    def _log(self, line: str) -> None:
        self._logger.log(self.ILogger.ERROR, line)


class Builder(Named):
    def __init__(self, trt: FakeTrt, logger: Any) -> None:
        super().__init__(trt, "Builder")
        trt._register(logger)

    def create_network(self, flags: int) -> "Network":
        assert flags == 1 << int(self._trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        return Network(self._trt)

    def create_builder_config(self) -> "Config":
        return Config(self._trt)

    def create_optimization_profile(self) -> "Profile":
        return Profile(self._trt)

    def build_serialized_network(self, network: "Network", config: "Config") -> bytes | None:
        trt = self._trt
        if trt._fails("raises"):
            raise RuntimeError("an exception of the bindings")
        monitor = config._values.get("progress_monitor")
        if monitor is not None:
            monitor.phase_start("Building", None, 2)
            if trt._fails("interrupt"):
                os.kill(os.getpid(), signal.SIGINT)
            if not monitor.step_complete("Building", 0):
                return None
            monitor.phase_finish("Building")
        if trt._fails("build") or trt._fails("memory"):
            return None
        facts = {"name": network._values["name"], "profiles": [p._shapes for p in config._profiles]}
        body = json.dumps(facts).encode() + b"\n" + network._model
        version = bytes(int(part) for part in trt.__version__.split(".")[:4])
        head = MAGIC[trt.__name__] + bytes(12) + struct.pack("<Q", HEADER + len(body)) + version
        head += MAGIC[trt.__name__] + struct.pack("<I", config._capabilities)
        return head.ljust(HEADER, b"\0") + body


class Tensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class Network(Named):
    def __init__(self, trt: FakeTrt) -> None:
        super().__init__(trt, "INetworkDefinition")
        self._model = b""
        self._inputs: list[Tensor] = []
        self._outputs: list[Tensor] = []

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    @property
    def num_outputs(self) -> int:
        return len(self._outputs)

    def get_input(self, i: int) -> Tensor:
        return self._inputs[i]


class Profile(Named):
    def __init__(self, trt: FakeTrt) -> None:
        super().__init__(trt, "IOptimizationProfile")
        self._shapes: dict[str, list[list[int]]] = {}

    def set_shape(self, name: str, *shapes: tuple[int, ...]) -> None:
        assert len(shapes) == 3
        self._shapes[name] = [list(shape) for shape in shapes]


class Config(Named):
    def __init__(self, trt: FakeTrt) -> None:
        super().__init__(trt, "IBuilderConfig")
        self._profiles: list[Profile] = []
        self._capabilities = 0

    def set_compute_capability(self, capability: Member, i: int) -> bool:
        self._capabilities |= 1 << (capability - 1)
        return True

    def create_timing_cache(self, data: bytes) -> "Cache":
        return Cache(self._trt, "ITimingCache", b"timings")

    def get_timing_cache(self) -> "Cache":
        return Cache(self._trt, "ITimingCache", b"timings")

    def add_optimization_profile(self, profile: Profile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1


class Error(Named):
    def __init__(self, trt: FakeTrt) -> None:
        super().__init__(trt, "ParserError")

    def node(self) -> int:
        return 3

    def node_name(self) -> str:
        return "conv_of_mine"

    def node_operator(self) -> str:
        return "NoSuchOperator"

    def desc(self) -> str:
        return "No importer registered for op: NoSuchOperator"


class OnnxParser(Named):
    def __init__(self, trt: FakeTrt, network: Network, logger: Any) -> None:
        super().__init__(trt, "OnnxParser")
        trt._register(logger)
        self._network, self._errors = network, 0

    @property
    def num_errors(self) -> int:
        return self._errors

    def get_error(self, i: int) -> Error:
        return Error(self._trt)

    def parse(self, model: bytes) -> bool:
        if self._trt._fails("parse"):
            self._errors = 1
            return False
        session = open_session(model)
        self._network._model = model
        self._network._inputs = [Tensor(v.name, shape_of(v)) for v in session.get_inputs()]
        self._network._outputs = [Tensor(v.name, shape_of(v)) for v in session.get_outputs()]
        return True


class Runtime(Named):
    def __init__(self, trt: FakeTrt, logger: Any) -> None:
        super().__init__(trt, "Runtime")
        trt._register(logger)
        if trt._fails("runtime"):
            trt._log("CUDA initialization failure with error: 35")
            raise TypeError("pybind11::init(): factory function returned nullptr")

    def deserialize_cuda_engine(self, plan: bytes) -> "Engine | None":
        trt = self._trt
        if plan[:4] != MAGIC[trt.__name__]:
            trt._log(LOG["magic"])
            return None
        if struct.unpack_from("<Q", plan, 16) != (len(plan),):
            trt._log(LOG["cut off"])
            return None
        if any(trt._fails(fault) for fault in ("driver", "version", "device")):
            return None
        facts, _, model = plan[HEADER:].partition(b"\n")
        return Engine(trt, json.loads(facts), model)


class Engine(Named):
    def __init__(self, trt: FakeTrt, facts: dict[str, Any], model: bytes) -> None:
        super().__init__(trt, "ICudaEngine")
        self._facts, self._model, self._session = facts, model, open_session(model)
        self._tensors = [*self._session.get_inputs(), *self._session.get_outputs()]

    @property
    def name(self) -> str:
        return self._facts["name"]

    @property
    def num_io_tensors(self) -> int:
        return len(self._tensors)

    @property
    def num_optimization_profiles(self) -> int:
        return len(self._facts["profiles"])

    def get_tensor_name(self, i: int) -> str:
        return self._tensors[i].name

    def get_tensor_mode(self, name: str) -> Member:
        modes = self._trt.TensorIOMode
        return modes.INPUT if name in {v.name for v in self._session.get_inputs()} else Member(99, "OUTPUT")

    def get_tensor_dtype(self, name: str) -> Member:
        return Member(0, TYPES[self._tensor(name).type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return shape_of(self._tensor(name))

    def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
        return self._facts["profiles"][profile][name]

    def create_engine_inspector(self) -> "Inspector":
        return Inspector(self._trt, self._model)

    def create_runtime_config(self) -> "Settings":
        return Settings(self._trt)

    def create_execution_context(self, settings: "Settings | None" = None) -> "Context | None":
        if self._trt._fails("context"):
            return None
        return Context(self._trt, self)

    def _tensor(self, name: str) -> Any:
        return next(v for v in self._tensors if v.name == name)


class Inspector(Named):
    """Tells that quantised layers read int8 and the others float, in the form that NVIDIA documents for 10."""

    def __init__(self, trt: FakeTrt, model: bytes) -> None:
        super().__init__(trt, "EngineInspector")
        self._model = onnx.load_model_from_string(model)

    def get_engine_information(self, form: Member) -> str:
        if self._trt._fails("inspector"):
            return "no JSON"
        quantised = [] if self._trt._fails("in float") else quantized_layers(self._model)
        nodes = [node.name for node in self._model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
        return json.dumps({"Layers": [self._layer(name, name in quantised) for name in nodes]})

    def _layer(self, name: str, quantised: bool) -> dict[str, Any]:
        tensor = {"Name": "x", "Format/Datatype": "Int8" if quantised else "Row major linear FP32"}
        return {"Name": name, "LayerType": "CaskConvolution", "Inputs": [tensor], "Outputs": [tensor],
                "Metadata": f"[ONNX Layer: {name}]"}  # fmt: skip


class Settings(Named):
    def __init__(self, trt: FakeTrt) -> None:
        super().__init__(trt, "IRuntimeConfig")

    def create_runtime_cache(self) -> "Cache":
        return Cache(self._trt, "IRuntimeCache", b"kernels")

    def set_runtime_cache(self, cache: "Cache") -> bool:
        return not self._trt._fails("cache")


class Cache(Named):
    """The timings of a builder, or the kernels that TensorRT-RTX compiled."""

    def __init__(self, trt: FakeTrt, holder: str, data: bytes) -> None:
        super().__init__(trt, holder)
        self._data = data

    def deserialize(self, data: bytes) -> bool:
        return data == self._data

    def serialize(self) -> bytes:
        return self._data


class Context(Named):
    def __init__(self, trt: FakeTrt, engine: Engine) -> None:
        super().__init__(trt, "IExecutionContext")
        self._engine, self._profile = engine, 0
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}
        trt._contexts += 1

    def __del__(self) -> None:
        self._trt._contexts -= 1

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        self._profile = profile
        return not self._trt._fails("profile") and profile < len(self._engine._facts["profiles"])

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        least, _, most = self._engine._facts["profiles"][self._profile][name]
        self._shapes[name] = shape
        inside = all(a <= n <= b for a, n, b in zip(least, shape, most, strict=True))
        return inside and not self._trt._fails("shape")

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return self._trt._cuda.live[address][0] == "device" and not self._trt._fails("address")

    def execute_async_v3(self, stream: int) -> bool:
        if self._trt._fails("execute") or set(self._addresses) != {v.name for v in self._engine._tensors}:
            return False
        shapes, addresses = dict(self._shapes), dict(self._addresses)
        self._trt._cuda.put(lambda: self._run(shapes, addresses))
        return True

    def _run(self, shapes: dict[str, tuple[int, ...]], addresses: dict[str, int]) -> None:
        session = self._engine._session
        types = {v.name: NUMPY[TYPES[v.type]] for v in self._engine._tensors}
        inputs = {n: self._memory(addresses[n], shape, types[n]).copy() for n, shape in shapes.items()}
        names = [v.name for v in session.get_outputs()]
        for name, value in zip(names, session.run(names, inputs), strict=True):
            wrong = 3.0 if self._trt._fails("answers") and name == "logits" else 1.0
            self._memory(addresses[name], value.shape, types[name])[...] = value * types[name](wrong)

    def _memory(self, address: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        assert size <= len(self._trt._cuda.live[address][1]), "a buffer is too small"
        return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)


def open_session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def shape_of(value: Any) -> tuple[int, ...]:
    return tuple(n if isinstance(n, int) else -1 for n in value.shape)
