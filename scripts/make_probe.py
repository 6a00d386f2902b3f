"""Write `hwr_export/probe.onnx`: the smallest model that keeps the graph's contract, for `hwr-export doctor`.

uint8 (batch, 4, 4) -> logits [ink, 8 - ink] with ink = sum(pixels) / 255, and their softmax.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def probe() -> bytes:
    weight = np.stack([np.ones(16), -np.ones(16)], axis=1).astype(np.float32) / np.float32(255)
    initializers = {
        "shape": np.asarray([-1, 16], dtype=np.int64),
        "weight": weight,
        "bias": np.asarray([0, 8], dtype=np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT),
            helper.make_node("Reshape", ["pixels", "shape"], ["flat"]),
            helper.make_node("MatMul", ["flat", "weight"], ["product"]),
            helper.make_node("Add", ["product", "bias"], ["logits"]),
            helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
        ],
        "probe",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, ["batch", 4, 4])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", 2]) for n in ("logits", "probabilities")],
        [numpy_helper.from_array(value, name) for name, value in initializers.items()],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10, producer_name="hwr-export"
    )
    onnx.checker.check_model(model, full_check=True)
    return bytes(model.SerializeToString(deterministic=True))


if __name__ == "__main__":
    target = Path(__file__).parent.parent / "hwr_export" / "probe.onnx"
    target.write_bytes(probe())
    print(f"{target.name}: {target.stat().st_size} bytes")
