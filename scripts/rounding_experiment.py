"""What weights of 8 and 7 bits do on this processor, and what rounding makes good: docs/figures/rounding-digits.json.

    python scripts/rounding_experiment.py     # about a minute

The reference network's float file is quantised for ONNX Runtime with weights of 8 and of 7 bits, each rounded to
nearest and so that errors make good for one another, and held against the float file on training images that
calibration did not see, as they are and with strokes a pixel thicker on each side. The test part is not read.
"""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime import quantization

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export import rounding, u8s8  # noqa: E402
from hwr_export.calibration import draw_samples  # noqa: E402
from hwr_export.checkpoint import read_info  # noqa: E402
from hwr_export.corruptions import thick  # noqa: E402
from hwr_export.files import json_bytes, write_atomic  # noqa: E402
from hwr_export.machine import machine_facts  # noqa: E402
from hwr_export.qdq import name_layers, node_name  # noqa: E402
from hwr_export.release import CHECKPOINT, FP32, Release  # noqa: E402
from hwr_export.runners import onnx_runner  # noqa: E402
from hwr_export.spec import LOGITS  # noqa: E402

HELD_OUT = 5000
LIMITS = {8: 128, 7: 64}  # bits -> the largest magnitude that ONNX Runtime's tool gives a weight


def main() -> None:
    release = Release.open(ROOT / "exported" / "digits")
    source = onnx.load_model_from_string(release.read(release.onnx(FP32)))
    layers = [node_name(n) for n in source.graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]
    name_layers(source, layers)
    recipe = read_info(release.path / CHECKPOINT).recipe
    samples = draw_samples(release.spec, recipe, None, None, 512, HELD_OUT)
    images = samples.held_out.images
    shown = {"as they are": images, "strokes 1 px thicker": thick(images, 1.0, np.random.default_rng(0))}

    def logits(model: onnx.ModelProto) -> dict[str, Any]:
        with onnx_runner("onnxruntime", model.SerializeToString(), release.spec) as runner:
            return {name: runner.infer_all(some)[LOGITS] for name, some in shown.items()}

    expected, rows, tool = logits(source), [], quantization.quantize_static
    for bits, limit in LIMITS.items():
        quantization.quantize_static = lambda *a, bits=bits, **k: tool(*a, **(k | {"reduce_range": bits == 7}))
        nearest = u8s8.u8s8_from_onnx(source, samples.calibration.images, "min-max")
        rounded = onnx.ModelProto()
        rounded.CopyFrom(nearest)
        rounding.LIMIT = min(limit, 127)
        changed = rounding.Rounding(source, samples.calibration.images).apply(rounded)
        for how, model in (("each to nearest", nearest), (f"together, {changed} layers", rounded)):
            row: dict[str, Any] = {"bits": bits, "rounded": how, "shown": {}}
            for name, found in logits(model).items():
                flips = int((found.argmax(1) != expected[name].argmax(1)).sum())
                error = float(((found - expected[name]) ** 2).mean())
                row["shown"][name] = {"answers_changed": flips, "mean_squared_logit_error": round(error, 5)}
            rows.append(row)
    facts = machine_facts()
    words = set(Path("/proc/cpuinfo").read_text().split())
    document = {
        "schema": 1,
        "command": "python scripts/rounding_experiment.py",
        "machine": {"cpu": facts["cpu"], "vnni": bool(words & {"avx_vnni", "avx512_vnni", "amx_int8"})},
        "n": len(images),
        "rows": rows,
    }
    write_atomic(ROOT / "docs" / "figures" / "rounding-digits.json", json_bytes(document))
    print(json.dumps(document))


if __name__ == "__main__":
    main()
