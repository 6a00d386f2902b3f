"""The TensorRT module of 10.3.0, 11.4.0 or RTX 1.7.1 without TensorRT: it knows only names of `trt_api.json`.

Any other name raises AttributeError, as one does that the product lacks. Its plan is the ONNX file behind a header and
it "executes" by ONNX Runtime on the CPU, so that answers are real; **nothing here ran on a GPU**. Faults are by name,
one for each step that can refuse; what the log says of them are lines that TensorRT has been seen to write.
"""

import json
import os
import signal
import struct
from collections.abc import Collection
from types import ModuleType
from typing import Any

from tests.engine.fake_names import TABLE, Enumeration, Member, Named, known
from tests.engine.fake_runtime import HEADER, LOG, MAGIC, NUMPY, Cache, Runtime, open_session, shape_of
from tests.fake_cuda import FakeCuda

FAULTS = {*LOG, "parse", "raises", "interrupt", "runtime", "answers", "cache", "inspector", "in float"}


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
