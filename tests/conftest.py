"""One tiny seeded model is fitted on real digits and exported once a session; tests get copies of its release."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if "PYTEST_XDIST_WORKER" in os.environ:
    # Before torch is imported: one thread a worker, or workers wait for one another's.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
from click.testing import CliRunner, Result
from hypothesis import settings
from PIL import Image
from rich.console import Console

from hwr_export.checkpoint import load_checkpoint
from hwr_export.cli import main
from hwr_export.datasets import Dataset, load_mnist
from hwr_export.export import ExportConfig, export_onnx
from hwr_export.release import Release, is_for
from hwr_export.runners import ONNX_BACKENDS, why_absent
from train.fit import fit
from train.recipe import Recipe

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# How long an example takes says what else the machine does, and nothing of the code.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ROOT = Path(__file__).parent.parent
MAX_BATCH = 16
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking")
TINY = {
    "schema": 1,
    "name": "tiny",
    "model": {"name": "edge", "config": {"channels": [8, 8, 12, 16]}},
    "data": {"limit": 2000, "validation_fraction": 0.2},
    "epochs": 3,
    "batch_size": 32,
    "learning_rate": 0.01,
    "ema_decay": 0.9,
}


def tiny_recipe(**changes: object) -> Recipe:
    return Recipe.model_validate(TINY | changes)


def silent() -> Console:
    return Console(quiet=True)


@pytest.fixture(scope="session", autouse=True)
def _ctrl_c_is_heeded() -> None:
    """A suite started in the background has Ctrl-C ignored, and would hand that on to the programs it starts."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Headless Chromium; one a process, since Playwright runs one loop."""
    if CHROMIUM is None:
        pytest.fail("pages are tested in a real browser: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=list(FLAGS))
        yield running
        running.close()


@pytest.fixture(scope="session")
def mnist_test() -> Dataset:
    return load_mnist("test")


@pytest.fixture(scope="session")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training run."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    # The same on every machine, also where bf16 is emulated: bounds of many tests are about this network.
    fit(tiny_recipe(precision="bf16"), out, None, resume=False, console=silent())
    return out


@pytest.fixture(scope="session")
def _exported(run_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("exported") / "tiny"
    export_onnx(load_checkpoint(run_dir), out, ExportConfig("tiny", max_batch=MAX_BATCH))
    return out


@pytest.fixture
def release_dir(_exported: Path, tmp_path: Path) -> Path:
    """A release of one's own: checkpoint, fp32 model, goldens, card."""
    out = tmp_path / "tiny"
    shutil.copytree(_exported, out)
    return out


@pytest.fixture
def release(release_dir: Path) -> Release:
    return Release.open(release_dir)


@pytest.fixture
def digit_png(mnist_test: Dataset, tmp_path: Path) -> Path:
    """A seven, dark on light, three times its size."""
    seven = mnist_test.images[np.flatnonzero(mnist_test.labels == 7)[0]]
    path = tmp_path / "seven.png"
    Image.fromarray(255 - seven).resize((84, 84), Image.Resampling.BICUBIC).save(path)
    return path


@pytest.fixture
def hwr() -> Callable[..., Result]:
    """Run `hwr-export` in this process."""

    def run(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return run


@pytest.fixture
def hwr_process() -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """Run `hwr-export` in a process of its own, on request with some packages impossible to import."""

    def run(*arguments: object, without: tuple[str, ...] = (), cwd: Path = ROOT) -> "subprocess.CompletedProcess[str]":
        block = "".join(f"sys.modules[{name!r}] = None; " for name in without)
        code = f"import sys; {block}from hwr_export.cli import main; main(prog_name='hwr-export')"
        command = [sys.executable, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, timeout=300)

    return run


def backends_here(precision: str = "fp32") -> list[str]:
    """Return the backends that this machine has for a file, bf16 among them where the processor knows it."""
    return [b for b in ONNX_BACKENDS if not why_absent(b) and is_for(precision, b)]


def one_json(text: str) -> dict:
    """Parse stdout that must be exactly one JSON document."""
    return json.loads(text)


def change_weight(path: Path, by: float = 0.5) -> None:
    """Move one weight of an ONNX file, as a flipped bit on a card or a wrong merge would."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT and len(t.dims) == 4)
    values = numpy_helper.to_array(tensor).copy()
    values.reshape(-1)[0] += by
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(model, path)


@pytest.fixture(scope="session")
def _quantized(_exported: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from hwr_export.quantize import QuantizeConfig, quantize

    out = tmp_path_factory.mktemp("quantized") / "tiny"
    shutil.copytree(_exported, out)
    quantize(Release.open(out), QuantizeConfig(observer="min-max", images=64, held_out=500))
    return out


@pytest.fixture
def quantized(_quantized: Path, tmp_path: Path) -> Release:
    """A release of one's own with both int8 files beside the float one."""
    out = tmp_path / "quantized"
    shutil.copytree(_quantized, out)
    return Release.open(out)
