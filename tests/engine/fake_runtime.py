"""The half of the fake TensorRT that loads a plan, looks into it and "executes" it, by ONNX Runtime on the CPU."""

import ctypes
import json
import struct
from typing import Any

import numpy as np
import onnx
import onnxruntime

from hwr_export.qdq import quantized_layers
from tests.engine.fake_names import Member, Named

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


class Runtime(Named):
    def __init__(self, trt: Any, logger: Any) -> None:
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
    def __init__(self, trt: Any, facts: dict[str, Any], model: bytes) -> None:
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

    def __init__(self, trt: Any, model: bytes) -> None:
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
    def __init__(self, trt: Any) -> None:
        super().__init__(trt, "IRuntimeConfig")

    def create_runtime_cache(self) -> "Cache":
        return Cache(self._trt, "IRuntimeCache", b"kernels")

    def set_runtime_cache(self, cache: "Cache") -> bool:
        return not self._trt._fails("cache")


class Cache(Named):
    """The timings of a builder, or the kernels that TensorRT-RTX compiled."""

    def __init__(self, trt: Any, holder: str, data: bytes) -> None:
        super().__init__(trt, holder)
        self._data = data

    def deserialize(self, data: bytes) -> bool:
        return data == self._data

    def serialize(self) -> bytes:
        return self._data


class Context(Named):
    def __init__(self, trt: Any, engine: Engine) -> None:
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
