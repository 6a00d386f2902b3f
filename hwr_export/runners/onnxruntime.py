"""ONNX Runtime on one of its execution providers: the only file that imports onnxruntime for inference."""

import os
import time
from collections.abc import Sequence

import numpy as np
import onnxruntime

from hwr_export.errors import RunnerError
from hwr_export.runners import Arrays, Runner
from hwr_export.spec import OUTPUTS, ModelSpec

CPU = "CPUExecutionProvider"


def open_session(model: bytes, provider: str, threads: int) -> onnxruntime.InferenceSession:
    """Open a session that really runs on `provider`.

    Raises:
        RunnerError: the model cannot be loaded, or the session came up on another provider.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model, options, providers=[provider])
    except Exception as err:  # ONNX Runtime raises pybind classes without a common base
        raise RunnerError(f"ONNX Runtime cannot load the model on {provider}: {str(err).splitlines()[0]}") from err
    # Asked for a provider that is not there, ONNX Runtime falls back to the CPU and says nothing.
    if session.get_providers()[0] != provider:
        raise RunnerError(f"ONNX Runtime was asked for {provider} and came up on {session.get_providers()[0]}")
    return session


class OnnxRuntimeRunner(Runner):
    backend = package = "onnxruntime"

    def __init__(
        self,
        model: bytes,
        spec: ModelSpec,
        threads: int = 1,
        outputs: Sequence[str] = OUTPUTS,
        provider: str = "CPU",
    ) -> None:
        super().__init__(spec, threads, outputs)
        self._model = model
        self._provider = f"{provider}ExecutionProvider"

    def _open(self) -> None:
        if self._provider != CPU:
            # float32 is float32: TF32, which NVIDIA's libraries take unless told otherwise, has ten bits of mantissa.
            os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
            onnxruntime.preload_dlls()  # CUDA and cuDNN from their own wheels, where there is no torch to bring them
        self._session = open_session(self._model, self._provider, self.threads)

    def metadata(self) -> dict[str, str]:
        return dict(self._session.get_modelmeta().custom_metadata_map)

    def _infer(self, inputs: Arrays) -> Arrays:
        try:
            values = self._session.run(list(self.outputs), inputs)
        except Exception as err:  # see open_session
            raise RunnerError(f"ONNX Runtime failed: {str(err).splitlines()[0]}") from err
        return {name: np.asarray(value) for name, value in zip(self.outputs, values, strict=True)}

    def _phases(self, inputs: Arrays) -> dict[str, int]:
        """Time the parts through I/O binding, where inputs and outputs lie on the provider's device."""
        device = "cpu" if self._provider == CPU else "cuda"
        binding = self._session.io_binding()
        times = [time.perf_counter_ns()]
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, onnxruntime.OrtValue.ortvalue_from_numpy(value, device, 0))
        for name in self.outputs:
            binding.bind_output(name, device)
        binding.synchronize_inputs()
        times.append(time.perf_counter_ns())
        self._session.run_with_iobinding(binding)
        binding.synchronize_outputs()
        times.append(time.perf_counter_ns())
        binding.copy_outputs_to_cpu()
        times.append(time.perf_counter_ns())
        return {name: b - a for name, a, b in zip(("copy_in", "compute", "copy_out"), times, times[1:], strict=False)}

    def _close(self) -> None:
        del self._session
