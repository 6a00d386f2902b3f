"""`--bisect` names the layer where a fault was put, in float and in quantised graphs."""

import numpy as np
import onnx
import pytest

from hwr_export.bisection import bisect
from hwr_export.errors import ParityError
from hwr_export.goldens import Goldens
from hwr_export.release import GOLDENS, Release
from hwr_export.stages import Suspect
from tests.faults import change, change_named, tensor, transpose, weight_quantizers, with_integers


@pytest.fixture
def parts(release: Release) -> tuple[bytes, np.ndarray]:
    goldens = Goldens.from_bytes(release.read(release.entry(GOLDENS)), GOLDENS)
    return release.read(release.onnx("fp32")), goldens.images


def edited(model: bytes, edit) -> bytes:
    loaded = onnx.load_from_string(model)
    edit(loaded)
    return loaded.SerializeToString()


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("layer", ["network.stem.0", "network.blocks.0.shortcut.0", "network.blocks.2.conv2"])
def test_a_float_file_parts_from_the_eager_model_where_it_was_changed(
    release: Release, parts, backend: str, layer: str
) -> None:
    model, images = parts
    broken = edited(model, change_named(f"{layer}.weight", lambda v: 1.01 * v))
    found = bisect(Suspect(broken, "fp32", backend), "export", release.path, release.spec, images)
    assert found["sides"] == "the eager model and this file"
    assert found["parted"]
    assert (found["first"]["layer"], found["first"]["operator"]) == (layer, "Conv")
    before = [s["difference"] for s in found["steps"][: found["steps"].index(found["first"])]]
    assert max(before) < found["threshold"]


def test_the_last_layer_can_part_too(release: Release, parts) -> None:
    model, images = parts
    broken = edited(model, change_named("network.classifier.bias", lambda v: v + np.eye(10)[0]))
    found = bisect(Suspect(broken, "fp32", "onnxruntime"), "export", release.path, release.spec, images)
    assert found["first"]["layer"] == "network.classifier"


def test_wrong_pixels_part_before_the_first_layer(release: Release, parts) -> None:
    model, images = parts
    found = bisect(
        Suspect(edited(model, transpose), "fp32", "onnxruntime"), "preprocessing", release.path, release.spec, images
    )
    assert found["first"]["value"] == "_to_copy"


def test_an_unchanged_file_nowhere_parts(release: Release, parts) -> None:
    model, images = parts
    found = bisect(Suspect(model, "fp32", "openvino"), "export", release.path, release.spec, images)
    assert not found["parted"]
    assert len(found["steps"]) > 20


@pytest.mark.parametrize("number", [1, 4, 7])
def test_a_quantised_file_parts_from_the_float_file_where_a_scale_is_wrong(
    release: Release, parts, tmp_path, number: int
) -> None:
    model, images = parts
    integers = with_integers(model, images[:250], tmp_path)

    def spoil(loaded: onnx.ModelProto) -> None:
        change(tensor(loaded, weight_quantizers(loaded)[number].input[1]), lambda v: 3 * v)

    loaded = onnx.load_from_string(integers)
    expected = weight_quantizers(loaded)[number].input[0].removesuffix(".weight_quantized")
    whole = bisect(Suspect(integers, "int8", "onnxruntime", model), "quantization", release.path, release.spec, images)
    assert not whole["parted"]
    found = bisect(
        Suspect(edited(integers, spoil), "int8", "onnxruntime", model),
        "quantization", release.path, release.spec, images,
    )  # fmt: skip
    assert found["sides"] == "the fp32 file and this one"
    assert found["first"]["layer"] == expected


def test_layers_are_paired_by_kind_where_names_tell_nothing(release: Release, parts, tmp_path) -> None:
    model, images = parts

    def rename(loaded: onnx.ModelProto) -> None:
        kept = {v.name for v in [*loaded.graph.input, *loaded.graph.output, *loaded.graph.initializer]}
        for node in loaded.graph.node:
            for names in (node.input, node.output):
                names[:] = [n if n in kept else f"v_{n}" for n in names]
        del loaded.graph.value_info[:]

    found = bisect(
        Suspect(edited(model, rename), "int8", "onnxruntime", model), "quantization", release.path, release.spec, images
    )
    assert [s["operator"] for s in found["steps"]] == ["Conv"] * 10 + ["Gemm"]
    assert not found["parted"]


def test_an_engine_is_compared_with_the_standard(release: Release, parts) -> None:
    model, images = parts
    found = bisect(Suspect(model, "fp32", "openvino"), "engine", release.path, release.spec, images)
    assert found["sides"] == "onnx.reference and openvino, the same file"
    assert not found["parted"]


def test_files_that_have_nothing_in_common_say_so(release: Release, parts) -> None:
    model, images = parts
    other = onnx.helper.make_model(
        onnx.helper.make_graph(
            [onnx.helper.make_node("Cast", ["image"], ["logits"], to=onnx.TensorProto.FLOAT)],
            "g",
            [onnx.helper.make_tensor_value_info("image", onnx.TensorProto.UINT8, ["batch", 28, 28])],
            [onnx.helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 28, 28])],
        )
    ).SerializeToString()
    with pytest.raises(ParityError, match="share no value by name and have not the same layers"):
        bisect(Suspect(other, "int8", "onnxruntime", model), "quantization", release.path, release.spec, images)
