"""fp32 ONNX file + calibration images -> the U8S8 file that ONNX Runtime runs fastest on a CPU. Torch-free.

Activations uint8 with a zero point, weights int8 per channel, biases int32: everything that TensorRT refuses, and what
ONNX Runtime's VNNI and dot-product kernels want. Preprocessing, logits and softmax stay in float.
"""

import io
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from hwr_export.calibration import Observer
from hwr_export.errors import QuantizationError, UsageError
from hwr_export.qdq import LAYERS
from hwr_export.spec import INPUT

OPERATORS = ["Conv", "Gemm", "MatMul", "Add", "MaxPool", "GlobalAveragePool", "Concat"]
BATCH = 64
# observer -> the tool's calibration method and its settings. Its own default for entropy, 128 bins for 128 levels, has
# one candidate and always finds the extremes.
METHODS: dict[Observer, tuple[str, dict[str, Any]]] = {
    "min-max": ("MinMax", {}),
    "histogram": ("Entropy", {"num_bins": 512, "num_quantized_bins": 128}),
    "percentile": ("Percentile", {"percentile": 99.999}),
}


def u8s8_from_onnx(model: onnx.ModelProto, images: npt.NDArray[np.uint8], observer: Observer) -> onnx.ModelProto:
    """Quantise a float model for ONNX Runtime on the CPU, calibrating with images, uint8 (N, H, W).

    Raises:
        UsageError: onnxruntime is not installed.
        QuantizationError: onnxruntime cannot quantise the model.
    """
    try:
        from onnxruntime import quantization as ort
        from onnxruntime.quantization.calibrate import save_tensors_data
    except ModuleNotFoundError as err:
        raise UsageError("quantising for ONNX Runtime needs the package: pip install 'hwr-export[cpu]'") from err

    class Reader(ort.CalibrationDataReader):  # type: ignore[misc]
        """One batch: the tool keeps every activation of all that a reader gives, so it gets a reader a batch."""

        def __init__(self, batch: npt.NDArray[np.uint8]) -> None:
            self._batches = iter([{INPUT: batch}])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    method, settings = METHODS[observer]
    method = getattr(ort.CalibrationMethod, method)
    with tempfile.TemporaryDirectory() as folder, _quietly():
        source, ranges, result = (Path(folder) / name for name in ("float.onnx", "ranges.json", "int8.onnx"))
        source.write_bytes(model.SerializeToString())
        try:
            calibrator = ort.create_calibrator(
                source, OPERATORS, str(Path(folder) / "augmented.onnx"), method, extra_options=settings
            )
            for start in range(0, len(images), BATCH):
                calibrator.collect_data(Reader(images[start : start + BATCH]))
            save_tensors_data(calibrator.compute_data(), ranges)
            ort.quantize_static(
                source, result, calibration_cache_path=ranges, calibrate_method=method,
                quant_format=ort.QuantFormat.QDQ, per_channel=True, reduce_range=True,
                activation_type=ort.QuantType.QUInt8, weight_type=ort.QuantType.QInt8,
                op_types_to_quantize=OPERATORS, nodes_to_exclude=outside_layers(model),
                # What a linear layer gives is quantised where the next one reads it; the logits are read by nobody.
                extra_options={"WeightSymmetric": True, "OpTypesToExcludeOutputQuantization": ["Gemm", "MatMul"]},
            )  # fmt: skip
        except Exception as err:  # it raises ValueError, RuntimeError and pybind classes
            raise QuantizationError(f"onnxruntime cannot quantise the model: {str(err).splitlines()[0]}") from err
        return onnx.load(result)


def outside_layers(model: onnx.ModelProto) -> list[str]:
    """Return the nodes before the first and behind the last layer: preprocessing and decoding."""
    behind: set[str] = set()
    for node in model.graph.node:
        if node.op_type in LAYERS or behind & set(node.input):
            behind |= set(node.output)
    ahead: set[str] = set()
    inner = set()
    for node in reversed(model.graph.node):
        if node.op_type in LAYERS or (ahead & set(node.output) and behind & set(node.input)):
            inner.add(node.name)
        if node.op_type in LAYERS or ahead & set(node.output):
            ahead |= set(node.input)
    return [node.name for node in model.graph.node if node.name not in inner]


@contextmanager
def _quietly() -> Iterator[None]:
    """Keep what onnxruntime's tool tells its own users (to pre-process first, what it collects) from ours."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(action="ignore"), redirect_stdout(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)
