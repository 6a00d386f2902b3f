"""What this machine can do at most: a large matrix product in float32, bf16 and int8, and a copy of memory. Needs onnx.

A peak is the best of the installed runtimes on a square product of SIDE: the roof of a roofline (Williams et al. 2009),
measured, because a data sheet knows neither the clock nor the hypervisor.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from hwr_export.errors import RunnerError
from hwr_export.runners import why_absent

SIDE = 1024
REPEATS = 7
COPY_BYTES = 1 << 27
OPSET, IR = 20, 10


def measure_peaks(threads: int) -> dict[str, Any]:
    """Return GFLOP/s (GOP/s for int8) of each arithmetic, with the runtime that reached it, and GB/s of memory.

    None where no installed runtime has that arithmetic.
    """
    ways: dict[str, list[tuple[str, Callable[[], Callable[[], object]]]]] = {
        "fp32": [
            ("onnxruntime", lambda: _onnxruntime(_product(), threads)),
            ("openvino", lambda: _openvino(_product(), threads, "f32")),
        ],
        "bf16": [("openvino-bf16", lambda: _openvino(_product(), threads, "bf16"))],
        "int8": [
            ("onnxruntime", lambda: _onnxruntime(_integer_product(), threads)),
            ("openvino", lambda: _openvino(_quantised_product(), threads, "f32")),
        ],
    }
    found: dict[str, Any] = {"threads": threads, "side": SIDE}
    for precision, choices in ways.items():
        rates = {}
        for backend, prepare in choices:
            if not why_absent(backend):
                rates[backend] = 2 * SIDE**3 / _fastest(prepare()) / 1e9
        best = max(rates, key=lambda name: rates[name], default=None)
        found[precision] = best and {"gflops": round(rates[best], 1), "by": best}
    found["memory_gb_s"] = round(_copy_rate() / 1e9, 2)
    return found


def _fastest(run: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few runs."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def _copy_rate() -> float:
    """Return bytes a second, read and written, of a copy far larger than the caches, by one thread."""
    source = np.ones(COPY_BYTES, np.uint8)
    target = np.empty_like(source)
    return 2 * COPY_BYTES / _fastest(lambda: np.copyto(target, source))


def _onnxruntime(model: bytes, threads: int) -> Callable[[], object]:
    from hwr_export.runners.onnxruntime import CPU, open_session

    session = open_session(model, CPU, threads)
    feed = {i.name: _values(i.type) for i in session.get_inputs()}
    return lambda: session.run(None, feed)


def _openvino(model: bytes, threads: int, hint: str) -> Callable[[], object]:
    import openvino

    from hwr_export.runners.openvino import compile_model

    request = compile_model(model, threads, hint)[0].create_infer_request()
    request.set_input_tensor(openvino.Tensor(_values("tensor(float)")))
    infer: Callable[[], object] = request.infer
    return infer


def _values(kind: str) -> "np.ndarray[Any, np.dtype[Any]]":
    rng = np.random.default_rng(0)
    if kind == "tensor(float)":
        return rng.standard_normal((SIDE, SIDE), dtype=np.float32)
    if kind == "tensor(uint8)":
        return rng.integers(0, 256, (SIDE, SIDE)).astype(np.uint8)
    raise RunnerError(f"a peak is not measured with {kind}")


def _weights() -> "np.ndarray[Any, np.dtype[np.int8]]":
    return np.random.default_rng(1).integers(-127, 128, (SIDE, SIDE)).astype(np.int8)


def _product() -> bytes:
    """x float32 @ w float32."""
    w = numpy_helper.from_array(_weights().astype(np.float32) / 127, "w")
    return _model([helper.make_node("MatMul", ["x", "w"], ["y"])], [w], TensorProto.FLOAT, TensorProto.FLOAT)


def _integer_product() -> bytes:
    """x uint8 @ w int8 -> int32, what ONNX Runtime's fast files come to."""
    w = numpy_helper.from_array(_weights(), "w")
    node = helper.make_node("MatMulInteger", ["x", "w"], ["y"])
    return _model([node], [w], TensorProto.UINT8, TensorProto.INT32)


def _quantised_product() -> bytes:
    """x float32 -> Q -> DQ @ DQ(w) -> Q -> DQ, as in our int8 files."""
    constants = [
        numpy_helper.from_array(_weights(), "w"),
        numpy_helper.from_array(np.float32(0.03), "sx"),
        numpy_helper.from_array(np.full(SIDE, 0.01, np.float32), "sw"),
        numpy_helper.from_array(np.float32(1.0), "sy"),
        numpy_helper.from_array(np.int8(0), "zero"),
        numpy_helper.from_array(np.zeros(SIDE, np.int8), "zeros"),
    ]
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "sx", "zero"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "sx", "zero"], ["xd"]),
        helper.make_node("DequantizeLinear", ["w", "sw", "zeros"], ["wd"], axis=1),
        helper.make_node("MatMul", ["xd", "wd"], ["p"]),
        helper.make_node("QuantizeLinear", ["p", "sy", "zero"], ["pq"]),
        helper.make_node("DequantizeLinear", ["pq", "sy", "zero"], ["y"]),
    ]
    return _model(nodes, constants, TensorProto.FLOAT, TensorProto.FLOAT)


def _model(nodes: list[Any], constants: list[Any], takes: int, gives: int) -> bytes:
    graph = helper.make_graph(
        nodes,
        "peak",
        [helper.make_tensor_value_info("x", takes, [SIDE, SIDE])],
        [helper.make_tensor_value_info("y", gives, [SIDE, SIDE])],
        constants,
    )
    model: ModelProto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR)
    return bytes(model.SerializeToString())
