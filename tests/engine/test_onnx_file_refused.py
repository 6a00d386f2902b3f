"""`trt MODEL.onnx` where no plan can come of it: the sentence, the exit code, and the previous plan kept.

A file that only the builder refuses goes to a process of its own, since a refusal spoils the next build.
"""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from tests.conftest import ROOT
from tests.engine import strangers
from tests.engine.strangers import INPUT3, save, zoo_mnist
from tests.engine.test_preflight import contents


def bad(change: Callable[[ModelProto], None], opset: int = 12) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        model = zoo_mnist(opset)
        change(model)
        return save(folder, model)

    return make


def of(model: Callable[[], ModelProto | bytes]) -> Callable[[Path], Path]:
    return lambda folder: save(folder, model())


def without_opset(model: ModelProto) -> None:
    del model.opset_import[:]


def of_another_domain_only(model: ModelProto) -> None:
    model.opset_import[0].domain = "ai.onnx.ml"


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[3].op_type = "MyRelu"


def foreign_operator(model: ModelProto) -> None:
    model.graph.node[3].domain = "com.microsoft"


def spoilt(value: float) -> Callable[[ModelProto], None]:
    def change(model: ModelProto) -> None:
        kernel = numpy_helper.to_array(model.graph.initializer[0]).copy()
        kernel[0, 0, 2, 2] = value
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "Parameter5"))

    return change


def short_weight(model: ModelProto) -> None:
    model.graph.initializer[2].raw_data = model.graph.initializer[2].raw_data[:100]


def no_shape(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.ClearField("shape")


def without_its_weights(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(zoo_mnist(12), path, save_as_external_data=True, location="model.bin", size_threshold=0)
    (folder / "model.bin").unlink()
    return path


def with_half_its_weights(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save(zoo_mnist(12), path, save_as_external_data=True, location="model.bin", size_threshold=0)
    (folder / "model.bin").write_bytes((folder / "model.bin").read_bytes()[:1000])
    return path


def with_weights_elsewhere(folder: Path) -> Path:
    model = onnx.load(without_its_weights(folder), load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = "/etc/hostname" if entry.key == "location" else entry.value
    return save(folder, model)


def dynamic_batch() -> ModelProto:
    return zoo_mnist(12, batch="N")


BAD: dict[str, tuple[Callable[[Path], Path], tuple[str, ...], int, str]] = {
    "cut off": (
        lambda f: save(f, zoo_mnist(12).SerializeToString()[:2000]),
        (),
        1,
        "it is no ONNX file or was cut off",
    ),
    "empty": (of(lambda: b""), (), 1, "it holds no graph, or was cut off before it"),
    "text": (of(lambda: b"this is no model"), (), 1, "it is no ONNX file or was cut off"),
    "unknown operator": (bad(unknown_operator), (), 1, "ReLU32_Output_0: MyRelu is no operator of opset 12"),
    "foreign operator": (bad(foreign_operator), (), 1, "Relu is of the domain com.microsoft, which is not ONNX"),
    "dropped operator": (of(lambda: strangers.one("Affine", 8)), (), 1, "y: Affine is no operator of opset 8"),
    "NaN": (bad(spoilt(float("nan"))), (), 1, "Parameter5: a weight is NaN or infinite, and so would be every answer"),
    "infinite": (bad(spoilt(float("-inf"))), (), 1, "Parameter5: a weight is NaN or infinite"),
    "short weight": (bad(short_weight), (), 1, "Parameter87: the weight does not fit its shape [16, 8, 5, 5]"),
    "no weights": (without_its_weights, (), 1, "keeps weights in model.bin, which cannot be read with it"),
    "half the weights": (with_half_its_weights, (), 1, "keeps weights in model.bin, which cannot be read with it"),
    "weights elsewhere": (
        with_weights_elsewhere,
        (),
        1,
        "keeps weights in /etc/hostname, which cannot be read with it",
    ),
    "no opset": (bad(without_opset), (), 1, "the file names no opset for the standard operators"),
    "no standard opset": (bad(of_another_domain_only), (), 1, "the file names no opset for the standard operators"),
    "opset 5": (of(lambda: zoo_mnist(5)), (), 1, "the file's opset is 5, tensorrt_rtx 1.7"),
    "opset 6": (of(lambda: zoo_mnist(6)), (), 1, "Plus30_Output_0: Add of opset 6 is not read"),
    "opset 99": (bad(lambda m: setattr(m.opset_import[0], "version", 99)), (), 1, "the file's opset is 99"),
    "dropout in training": (of(strangers.dropout_in_training), (), 1, "y: Dropout computes as in training; export the"),
    "batch norm in training": (
        of(strangers.batch_norm_in_training),
        (),
        1,
        "y: BatchNormalization computes as in train",
    ),
    "float on Turing": (
        of(lambda: zoo_mnist(12)),
        ("--target", "t4"),
        1,
        "MatMul computes in float32, which TensorRT-RTX",
    ),
    "dynamic batch": (of(dynamic_batch), (), 1, f"{INPUT3}: its shape is Nx1x28x28 and a plan needs sizes for N; give"),
    "no shape": (bad(no_shape), (), 1, f"{INPUT3}: the file does not say the shape of this input; say it: --shape"),
    "wrong rank": (
        of(dynamic_batch),
        ("--shape", f"{INPUT3}=28x28"),
        1,
        f"{INPUT3}: the graph takes Nx1x28x28 and --shape gives it 28x28",
    ),
    "wrong side": (
        of(dynamic_batch),
        ("--shape", f"{INPUT3}=1x3x28x28"),
        1,
        f"{INPUT3}: the graph takes Nx1x28x28 and --shape gives it 1x3x28x28",
    ),
    "batch that is fixed": (
        of(lambda: zoo_mnist(12)),
        ("--shape", f"{INPUT3}=4x1x28x28"),
        1,
        "the graph takes 1x1x28x28 and --shape gives it 4x1x28x28",
    ),
    "no such input": (
        of(lambda: zoo_mnist(12)),
        ("--shape", "Input4=1x1x28x28"),
        1,
        f"Input4: the graph has no input of this name for --shape; it has {INPUT3}",
    ),
    "words": (of(dynamic_batch), ("--shape", "1x1x28x28"), 2, "is not of the form NAME=1x1x28x28, or NAME=MIN:OPT:MAX"),
    "two shapes": (
        of(dynamic_batch),
        ("--shape", "a=1:2"),
        2,
        "is not of the form NAME=1x1x28x28, or NAME=MIN:OPT:MAX",
    ),
    "decreasing": (of(dynamic_batch), ("--shape", "a=1:4:2"), 2, "must not decrease from the smallest to the largest"),
    "twice": (of(dynamic_batch), ("--shape", "a=1", "--shape", "a=2"), 2, "--shape names the input a twice"),
    "a Jetson": (of(lambda: zoo_mnist(12)), ("--target", "jetson-agx-orin"), 2, "copy the release to that device"),
    "no such target": (of(lambda: zoo_mnist(12)), ("--target", "rtx-1"), 2, "there is no target 'rtx-1'"),
    "an option of releases": (of(lambda: zoo_mnist(12)), ("--precision", "fp16"), 2, "--precision is for a release"),
    "a batch": (of(dynamic_batch), ("--max-batch", "8"), 2, "is a file; give --shape"),
    "native": (of(lambda: zoo_mnist(12)), ("--native",), 2, "--native is for a release, and"),
    "an option of TensorRT": (
        of(lambda: zoo_mnist(12)),
        ("--refittable",),
        2,
        "--refittable does not go with tensorrt",
    ),
    "no such file": (lambda f: f / "none.onnx", (), 2, "none.onnx cannot be read: No such file or directory; give an"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file(tmp_path: Path, hwr, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    make, words, code, sentence = BAD[name]
    path = make(tmp_path)
    save(tmp_path, b"the previous plan", "model.sm86.engine")
    before = contents(tmp_path)
    monkeypatch.setattr("hwr_export.engine.onnx_file.engine_from_onnx", lambda *_: pytest.fail("the builder was run"))
    result = hwr("trt", path, *(words if "--target" in words else (*words, "--target", "sm86")))
    assert result.exit_code == code, result.output
    assert sentence in " ".join(result.stderr.split())
    assert contents(tmp_path) == before


def strings() -> ModelProto:
    text, same = (helper.make_tensor_value_info(name, TensorProto.STRING, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "text", [text], [same])
    return helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 14)])


def statistics_of_each_pixel() -> ModelProto:
    shaped = [strangers.constant(n, np.ones((4, 8, 8), np.float32)) for n in ("scale", "bias", "mean", "variance")]
    node = helper.make_node("BatchNormalization", ["x", *(t.name for t in shaped)], ["y"], name="norm", spatial=0)
    return strangers.small(8, [node], shaped)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (strings, "Failed to convert ONNX date type"),  # the parser's own spelling
        (statistics_of_each_pixel, "node 0 'norm' (BatchNormalization): Assertion failed: "),
    ],
)
def test_what_the_builder_refuses_is_said_in_its_words(tmp_path: Path, hwr_process, make, sentence: str) -> None:
    path = save(tmp_path, make())
    save(tmp_path, b"the previous plan", "model.sm86.engine")
    before = contents(tmp_path)
    done = hwr_process("trt", path, "--target", "sm86")
    assert done.returncode == 1
    assert "Error: tensorrt_rtx cannot parse the ONNX file: " in done.stderr
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr
    assert contents(tmp_path) == before


# -- the world fails ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("output", "sentence"),
    [("no/such/m.engine", "no/such is no directory"), ("m.onnx", "is an ONNX file"), ("", "is a directory")],
)
def test_a_place_where_no_plan_can_go(tmp_path: Path, hwr, output: str, sentence: str) -> None:
    path = save(tmp_path, zoo_mnist(8))
    result = hwr("trt", path, "--target", "sm86", "-o", tmp_path / output)
    assert result.exit_code == 2
    assert sentence in " ".join(result.stderr.split())
    assert contents(tmp_path) == {"model.onnx": path.read_bytes()}


def test_one_name_for_several_plans(tmp_path: Path, hwr) -> None:
    result = hwr("trt", save(tmp_path, zoo_mnist(8)), "-o", tmp_path / "m.engine")
    assert result.exit_code == 2
    assert "-o names one file and there would be 4 plans (sm80, sm86, sm89, sm120); add --together" in result.stderr


def test_a_directory_that_cannot_be_written(tmp_path: Path, hwr, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path, zoo_mnist(8))
    monkeypatch.setattr("os.access", lambda _, mode, **__: mode != os.W_OK)  # root may write anywhere
    result = hwr("trt", path, "--target", "sm86")
    assert result.exit_code == 2
    assert "is not writable, and the plan would go there; name another place with -o" in " ".join(result.stderr.split())
    assert contents(tmp_path) == {"model.onnx": path.read_bytes()}


@pytest.fixture
def built(tmp_path: Path, hwr) -> Path:
    path = save(tmp_path, zoo_mnist(8), "mnist.onnx")
    assert hwr("trt", path, "--target", "sm86").exit_code == 0
    return path


@pytest.mark.parametrize("share", [0.5, 1.0])
def test_a_full_disk(built: Path, share: float) -> None:
    """The larger plan does not fit, or it does and what belongs beside it does not."""
    before = contents(built.parent)
    limit = int((built.parent / "mnist.sm86.engine").stat().st_size * share)
    fails = "" if share < 1 else "import hwr_export.engine.onnx_file as f; f.json_bytes = lambda s: b' ' * (1 << 20); "
    done = subprocess.run(
        [sys.executable, "-c", f"{fails}from hwr_export.cli import main; main()", "trt", built, "--target", "sm86"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )
    assert done.returncode == 1, done.stderr
    assert "File too large; nothing was changed" in done.stderr
    assert contents(built.parent) == before


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_build(built: Path, number: int) -> None:
    """The process gets the signal at the builder's first report of progress."""
    before = contents(built.parent)
    code = (
        "import os, sys; from pathlib import Path; import hwr_export.engine.onnx_file as f; "
        "build = f.build_from_file; f.build_from_file = lambda path, config, say, progress: build(path, config, say, "
        f"lambda *_: os.kill(os.getpid(), {int(number)})); from hwr_export.cli import main; main()"
    )
    command = [sys.executable, "-c", code, "trt", built, "--target", "sm86"]
    done = subprocess.run(command, capture_output=True, check=False, cwd=ROOT)
    assert done.returncode == (130 if number == signal.SIGINT else -9)
    assert b"Traceback" not in done.stderr
    assert contents(built.parent) == before


def test_words_of_a_file_do_not_go_with_a_release(release_dir: Path, hwr) -> None:
    before = contents(release_dir)
    for words in (("--shape", "image=1x28x28"), ("-o", "model.engine")):
        result = hwr("trt", release_dir, *words)
        assert result.exit_code == 2
        assert "is for an ONNX file, and" in " ".join(result.stderr.split())
    assert contents(release_dir) == before
