"""Any network goes the same way: ours, a user's factory, a saved program."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from hwr_export.checkpoint import load_checkpoint
from hwr_export.datasets import Dataset
from hwr_export.errors import CheckpointError, ExportError, UsageError
from hwr_export.export import ExportConfig, checkpoint_from_factory, checkpoint_from_program, export_onnx
from hwr_export.files import sha256_file
from hwr_export.models import build_model
from hwr_export.release import MANIFEST, Release
from hwr_export.runners import onnx_runner
from hwr_export.spec import LOGITS, Preprocessing
from tests.conftest import MAX_BATCH, change_weight

CONFIG = ExportConfig("mine", max_batch=8)
FACTORY = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 3)
    def forward(self, x):
        return self.fc(self.drop(self.conv(x).relu().mean((2, 3))))

def make():
    torch.manual_seed(0)
    return Net()

def make_probabilities():
    return nn.Sequential(make(), nn.Softmax(dim=1))

def make_log_probabilities():
    return nn.Sequential(make(), nn.LogSoftmax(dim=1))
"""


@pytest.fixture
def user_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "user_net.py").write_text(FACTORY)
    monkeypatch.syspath_prepend(str(tmp_path))
    import user_net

    for name in ("make", "make_probabilities", "make_log_probabilities"):
        torch.save(getattr(user_net, name)().state_dict(), tmp_path / f"{name}.pt")
    return tmp_path


def export_factory(folder: Path, name: str, out: Path, labels: str = "abc") -> Release:
    source = checkpoint_from_factory(
        f"user_net:{name}", folder / f"{name}.pt", labels, Preprocessing(height=20, width=32, channels=3), "mine"
    )
    return export_onnx(source, out, CONFIG)


def test_a_release_is_reproducible(release_dir: Path, run_dir: Path, tmp_path: Path) -> None:
    again = export_onnx(load_checkpoint(run_dir), tmp_path / "again", ExportConfig("tiny", max_batch=MAX_BATCH))
    for file in again.manifest.files:
        assert sha256_file(release_dir / file.path) == file.sha256, file.path
    assert (release_dir / MANIFEST).read_bytes() == (tmp_path / "again" / MANIFEST).read_bytes()


def test_the_release_carries_the_checkpoint_it_was_made_from(release: Release, run_dir: Path) -> None:
    ours, theirs = load_checkpoint(release.path), load_checkpoint(run_dir)
    assert ours.info == theirs.info
    assert ours.weights == theirs.weights


def test_a_users_network_of_another_shape(user_module: Path, tmp_path: Path, mnist_test: Dataset) -> None:
    release = export_factory(user_module, "make", tmp_path / "r")
    import user_net

    network = user_net.make().eval()
    image = np.random.default_rng(0).integers(0, 256, (5, 20, 32)).astype(np.uint8)
    with torch.inference_mode():
        expected = network(torch.tensor(image / 255, dtype=torch.float32).unsqueeze(1).expand(-1, 3, -1, -1))
    with onnx_runner("onnxruntime", release.read(release.onnx("fp32")), release.spec) as runner:
        found = runner.infer({"image": image})[LOGITS]
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-5)
    assert release.spec.labels == "abc"


def test_log_probabilities_are_logits_too(user_module: Path, tmp_path: Path) -> None:
    assert export_factory(user_module, "make_log_probabilities", tmp_path / "r").path.is_dir()


def test_probabilities_are_no_logits(user_module: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="returns probabilities"):
        export_factory(user_module, "make_probabilities", tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_labels_must_be_as_many_as_logits(user_module: Path, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="one logit for each of the labels"):
        export_factory(user_module, "make", tmp_path / "r", labels="abcd")


def save_program(path: Path, example: torch.Tensor, dynamic: bool, network: nn.Module) -> Path:
    shapes = {0: torch.export.Dim("batch", min=1, max=64)} if dynamic else None
    torch.export.save(
        torch.export.export(network.eval(), (example,), dynamic_shapes=(shapes,) if shapes else None), path
    )
    return path


class TakesPixels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = build_model("edge", 10, {"channels": [4, 4, 4, 4]})

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image.float().unsqueeze(1) / 255)


@pytest.mark.parametrize("pixels", [True, False])
def test_a_saved_program(tmp_path: Path, pixels: bool) -> None:
    network = TakesPixels().eval()
    example = torch.zeros((2, 28, 28), dtype=torch.uint8) if pixels else torch.zeros((2, 1, 28, 28))
    path = save_program(tmp_path / "p.pt2", example, True, network if pixels else network.network)
    source = checkpoint_from_program(path, "0123456789", Preprocessing(), "program")
    release = export_onnx(source, tmp_path / "r", CONFIG)
    image = np.random.default_rng(0).integers(0, 256, (5, 28, 28)).astype(np.uint8)
    with onnx_runner("onnxruntime", release.read(release.onnx("fp32")), release.spec) as runner:
        found = runner.infer({"image": image})[LOGITS]
    with torch.inference_mode():
        np.testing.assert_allclose(found, network(torch.tensor(image)).numpy(), atol=1e-5)
    # The release carries the program, so that parity can run it again.
    np.testing.assert_array_equal(load_checkpoint(release.path).info.parameters, source.info.parameters)


def test_a_program_with_a_fixed_batch_is_refused(tmp_path: Path) -> None:
    path = save_program(tmp_path / "p.pt2", torch.zeros((1, 1, 28, 28)), False, TakesPixels().network)
    with pytest.raises(ExportError, match=r"fixed batch of 1; save it again with dynamic_shapes"):
        export_onnx(checkpoint_from_program(path, "0123456789", Preprocessing(), "p"), tmp_path / "r", CONFIG)


def test_a_program_saved_in_train_mode_is_refused(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10)).train()
    program = torch.export.export(
        network, (torch.zeros((2, 1, 28, 28)),), dynamic_shapes=({0: torch.export.Dim("batch", min=1, max=64)},)
    )
    torch.export.save(program, tmp_path / "p.pt2")
    source = checkpoint_from_program(tmp_path / "p.pt2", "0123456789", Preprocessing(), "p")
    with pytest.raises(ExportError, match=r"dropout at .* is still active"):
        export_onnx(source, tmp_path / "r", CONFIG)


@pytest.mark.parametrize("content", [None, b"", b"PK\x03\x04 cut off"])
def test_what_is_no_program_says_so(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "p.pt2"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"p\.pt2"):
        checkpoint_from_program(path, "01", Preprocessing(), "p")


def test_a_network_that_is_nan_is_refused(run_dir: Path, tmp_path: Path) -> None:
    source = load_checkpoint(run_dir)
    with torch.no_grad():
        source.module.classifier.bias[0] = float("nan")
    with pytest.raises(ExportError, match="NaN or infinity"):
        export_onnx(source, tmp_path / "r", CONFIG)


def test_an_exporter_that_breaks_the_model_is_caught(run_dir: Path, tmp_path: Path, monkeypatch) -> None:
    """What other tools call a success: the file is valid ONNX and computes something else."""
    from hwr_export import export

    real = export.onnx_from_program

    def breaking(*arguments) -> bytes:
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(real(*arguments))
        change_weight(broken)
        return broken.read_bytes()

    monkeypatch.setattr(export, "onnx_from_program", breaking)
    with pytest.raises(ExportError, match=r"the exported file is not the model.*no release was written"):
        export_onnx(load_checkpoint(run_dir), tmp_path / "r", CONFIG)
    assert not (tmp_path / "r").exists()


def test_samples_from_a_folder(run_dir: Path, tmp_path: Path, mnist_test: Dataset) -> None:
    from PIL import Image

    folder = tmp_path / "scans"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(255 - mnist_test.images[i]).resize((56, 56)).save(folder / f"{i}.png")
    release = export_onnx(load_checkpoint(run_dir), tmp_path / "r", ExportConfig("f", 8, samples=str(folder)))
    assert release.entry("goldens.npz").size_bytes > 0


@pytest.mark.parametrize("samples", ["emnist", "empty"])
def test_samples_that_are_none_are_refused(run_dir: Path, tmp_path: Path, samples: str) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"samples|at least 8"):
        export_onnx(load_checkpoint(run_dir), tmp_path / "r", ExportConfig("f", 8, samples=str(tmp_path / samples)))


def test_a_previous_release_is_replaced_whole(release_dir: Path, run_dir: Path) -> None:
    (release_dir / "engines").mkdir()
    (release_dir / "engines" / "old.engine").write_bytes(b"of the old model")
    export_onnx(load_checkpoint(run_dir), release_dir, CONFIG)
    assert not (release_dir / "engines").exists()
    assert Release.open(release_dir).spec.max_batch == 8


def test_a_second_file_in_half_precision(run_dir: Path, tmp_path: Path, mnist_test: Dataset) -> None:
    import onnx

    config = ExportConfig("tiny", max_batch=MAX_BATCH, half=True)
    release = export_onnx(load_checkpoint(run_dir), tmp_path / "r", config)
    single, half = release.onnx("fp32"), release.onnx("fp16")
    assert half.size_bytes < 0.7 * single.size_bytes
    model = onnx.load_model_from_string(release.read(half))
    big = [t for t in model.graph.initializer if len(t.dims) > 1]
    assert {t.data_type for t in big} == {onnx.TensorProto.FLOAT16}
    outputs = {}
    for backend in ("onnxruntime", "openvino"):
        for file in (single, half):
            with onnx_runner(backend, release.read(file), release.spec) as runner:
                outputs[file.precision] = runner.infer_all(mnist_test.images[:200])
        difference = np.abs(outputs["fp16"][LOGITS] - outputs["fp32"][LOGITS]).max()
        assert outputs["fp16"][LOGITS].dtype == np.float32
        assert 0 < difference < 0.1
    # The network is half, the arithmetic around it is not: nothing of it was asked of the caller's module.
    assert all(p.dtype == torch.float32 for p in load_checkpoint(run_dir).module.parameters())


def test_tensorrt_builds_the_file_in_half_precision(run_dir: Path, tmp_path: Path, hwr) -> None:
    result = hwr("onnx", run_dir, "-o", tmp_path / "r", "--precision", "fp16", "--max-batch", 8)
    assert result.exit_code == 0, result.output
    result = hwr("trt", tmp_path / "r", "--target", "sm86")
    assert result.exit_code == 0, result.output
    assert "model.fp16.sm86.engine" in result.output


def test_a_network_that_overflows_in_half_is_refused(run_dir: Path, tmp_path: Path) -> None:
    source = load_checkpoint(run_dir)
    with torch.no_grad():
        source.module.classifier.weight *= 1e7
    with pytest.raises(ExportError, match=r"the exported file is not the model: .*no release was written"):
        export_onnx(source, tmp_path / "r", ExportConfig("tiny", max_batch=8, half=True))


def test_a_saved_program_keeps_its_precision(tmp_path: Path) -> None:
    path = save_program(tmp_path / "p.pt2", torch.zeros((2, 1, 28, 28)), True, TakesPixels().network)
    source = checkpoint_from_program(path, "0123456789", Preprocessing(), "p")
    with pytest.raises(ExportError, match="a saved program computes in the precision it was traced with"):
        export_onnx(source, tmp_path / "r", ExportConfig("p", max_batch=8, half=True))
