"""A release's network as another exporter's user would hand it over: normalised float32 (N, C, H, W) in, logits out.

    python scripts/peers_network.py torch-onnx RELEASE OUT.onnx
    python scripts/peers_network.py openvino RELEASE OUT.xml

It is also the `--model_script` of `olive capture-onnx-graph`, which looks for the functions that begin with `_`.
"""

import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).parent.parent))

from hwr_export.checkpoint import load_checkpoint, read_info


def example(release: str) -> torch.Tensor:
    """Return a batch of two."""
    p = read_info(Path(release) / "checkpoint.json").preprocessing
    return torch.zeros(2, p.channels, p.height, p.width)


def torch_onnx(release: str, out: str) -> None:
    network = load_checkpoint(Path(release)).module
    shapes = ({0: torch.export.Dim("batch")},)
    torch.onnx.export(network, (example(release),), out, dynamo=True, dynamic_shapes=shapes)


def openvino_ir(release: str, out: str) -> None:
    import openvino

    network = load_checkpoint(Path(release)).module
    batch = example(release)
    converted = openvino.convert_model(network, example_input=batch, input=[-1, *batch.shape[1:]])
    openvino.save_model(converted, out)


def _model_loader(release: str) -> torch.nn.Module:
    return load_checkpoint(Path(release)).module


def _io_config(_: Any) -> dict[str, Any]:
    names = {"input_names": ["image"], "output_names": ["logits"]}
    return names | {"dynamic_axes": {"image": {0: "batch"}, "logits": {0: "batch"}}}


def _dummy_inputs(model: Any) -> tuple[torch.Tensor]:
    return (example(model.model_path),)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["torch-onnx", release, out]:
            torch_onnx(release, out)
        case ["openvino", release, out]:
            openvino_ir(release, out)
        case _:
            sys.exit(__doc__)
