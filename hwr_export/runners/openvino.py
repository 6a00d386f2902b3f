"""OpenVINO on the CPU. The precision of float files is always stated: left alone it may run them in bf16."""

import io
import threading
import time
from collections.abc import Sequence

import numpy as np
import openvino

from hwr_export.errors import RunnerError
from hwr_export.runners import Arrays, Runner
from hwr_export.spec import OUTPUTS, ModelSpec

# Requests of two threads of a process lock each other out for good, 11 times in 400 (2026.4.1): one call at a time.
ONE_AT_A_TIME = threading.Lock()


def compile_model(
    model: bytes, threads: int, hint: str, profiled: bool = False
) -> tuple[openvino.CompiledModel, openvino.Model]:
    """Read and compile ONNX bytes for the CPU, float files in the precision `hint`.

    Raises:
        RunnerError: OpenVINO refuses the file.
    """
    config = {
        "INFERENCE_PRECISION_HINT": hint,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
        "PERF_COUNT": profiled,
    }
    core = openvino.Core()
    try:
        with ONE_AT_A_TIME:
            read = core.read_model(io.BytesIO(model))
            return core.compile_model(read, "CPU", config), read
    except Exception as err:  # OpenVINO raises RuntimeError and its own classes
        lines = [line.strip() for line in str(err).splitlines() if line.strip()]
        raise RunnerError(f"OpenVINO cannot load the model: {lines[-1][:300]}") from err


class OpenVinoRunner(Runner):
    backend = package = "openvino"

    def __init__(
        self, model: bytes, spec: ModelSpec, threads: int = 1, outputs: Sequence[str] = OUTPUTS, hint: str = "f32"
    ) -> None:
        super().__init__(spec, threads, outputs)
        self._model = model
        self._hint = hint

    def _open(self) -> None:
        compiled, read = compile_model(self._model, self.threads, self._hint)
        devices = compiled.get_property("EXECUTION_DEVICES")
        if list(devices) != ["CPU"]:
            raise RunnerError(f"OpenVINO was asked for CPU and came up on {', '.join(devices)}")
        info = read.get_rt_info()
        self._metadata = {k: v.astype(str) for k, v in info["framework"].items()} if "framework" in info else {}
        self._request = compiled.create_infer_request()

    def metadata(self) -> dict[str, str]:
        return self._metadata

    def _infer(self, inputs: Arrays) -> Arrays:
        try:
            with ONE_AT_A_TIME:
                results = self._request.infer(inputs)
        except Exception as err:  # see _open
            raise RunnerError(f"OpenVINO failed: {str(err).splitlines()[-1][:300]}") from err
        # The request reuses its output buffers: copy, or the next call changes this one's answer.
        return {name: np.array(results[name]) for name in self.outputs}

    def _phases(self, inputs: Arrays) -> dict[str, int]:
        times = [time.perf_counter_ns()]
        for name, value in inputs.items():
            self._request.set_tensor(name, openvino.Tensor(value, shared_memory=False))
        times.append(time.perf_counter_ns())
        self._request.infer()
        times.append(time.perf_counter_ns())
        for name in self.outputs:
            np.array(self._request.get_tensor(name).data)
        times.append(time.perf_counter_ns())
        return {name: b - a for name, a, b in zip(("copy_in", "compute", "copy_out"), times, times[1:], strict=False)}

    def _close(self) -> None:
        del self._request
