"""`hwr-export` with ONNX Runtime's GPU providers as backends: onnxruntime/CUDA, /TensorRT, /TensorRT-RTX.

    python scripts/onnxruntime_provider.py parity RELEASE --backend onnxruntime/CUDA --json

A session that comes up on another provider than it was asked for is an error, never a slower success.
"""

import os

import onnxruntime

from hwr_export.cli import main
from hwr_export.runners import ONNX_BACKENDS, Backend
from hwr_export.runners.onnxruntime import OnnxRuntimeRunner, open_session


class _Provider(OnnxRuntimeRunner):
    provider: str

    def _open(self) -> None:
        self._session = open_session(self._model, self.provider, self.threads)

    def version(self) -> str:
        return f"{onnxruntime.__version__} {self.provider}"


class Cuda(_Provider):
    backend = "onnxruntime/CUDA"
    provider = "CUDAExecutionProvider"


class TensorRt(_Provider):
    backend = "onnxruntime/TensorRT"
    provider = "TensorrtExecutionProvider"


class TensorRtRtx(_Provider):
    backend = "onnxruntime/TensorRT-RTX"
    provider = "NvTensorRTRTXExecutionProvider"


if __name__ == "__main__":
    # float32 is float32: TF32, which NVIDIA's libraries use for it unless told otherwise, has ten bits of mantissa.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")
    onnxruntime.preload_dlls()  # CUDA and cuDNN from their own wheels, where there is no torch to bring them
    ONNX_BACKENDS.update(
        {
            c.backend: Backend(f"onnxruntime_provider:{c.__name__}", "onnxruntime", "gpu")
            for c in (Cuda, TensorRt, TensorRtRtx)
        }
    )
    main(prog_name="hwr-export")
