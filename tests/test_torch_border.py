"""What a scanner runs never imports torch, and help is instant."""

import resource
import subprocess
import sys

import pytest

import hwr_export
from tests.conftest import ROOT, one_json

BORDER = ("torch", "torchvision", "torchao", "onnx", "onnxscript", "safetensors")
ABOVE = {"checkpoint", "export", "models", "onnx_model", "program", "quantize", "quantizer", "runners.eager"}
ABOVE |= {
    "engine.preflight",
    "engine.rules",
    "qdq",
    "qdq_lint",
    "sensitivity",
    "taps",
    "rounding",
    "u8s8",
    "layers",
    "peaks",
    "roofline",
}  # they need onnx, and no torch


def torch_free_modules() -> list[str]:
    root = ROOT / "hwr_export"
    names = []
    for path in sorted(root.rglob("*.py")):
        name = ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        if name != "__main__" and not any(name == above or name.startswith(f"{above}.") for above in ABOVE):
            names.append("hwr_export" if name == "__init__" else f"hwr_export.{name}")
    return names


def test_every_torch_free_module_imports_where_torch_cannot() -> None:
    names = torch_free_modules()
    assert len(names) > 20
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({BORDER!r}))\n"
        "import importlib\n"
        f"for name in {names!r}: importlib.import_module(name)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("command", ["--help", "--version", "read --help", "parity --help"])
def test_help_imports_nothing_heavy(command: str) -> None:
    code = "from hwr_export.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", code, *command.split()],
        capture_output=True, text=True, check=True, cwd=ROOT,
    )  # fmt: skip
    imported = {line.rsplit("|", 1)[-1].strip().split(".")[0] for line in done.stderr.splitlines()}
    heavy = {*BORDER, "numpy", "onnxruntime", "openvino", "tensorrt_rtx", "PIL", "pydantic", "rich"}
    assert not imported & heavy


def test_help_takes_less_than_300_ms_of_cpu() -> None:
    spent = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, "-m", "hwr_export", "--help"], capture_output=True, check=True, cwd=ROOT)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        spent.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(spent) < 0.3


def test_reading_showing_and_building_need_no_torch(release_dir, digit_png, hwr_process) -> None:
    for arguments in (
        ("read", digit_png, "--release", release_dir),
        ("show", release_dir),
        ("trt", release_dir, "--target", "sm86"),
        ("parity", release_dir, "--baseline", "goldens"),
    ):
        without = [name for name in BORDER if arguments[0] != "trt" or name != "onnx"]
        result = hwr_process(*arguments, "--json", without=tuple(without))
        assert result.returncode == 0, result.stderr
        assert one_json(result.stdout)["schema"] == 1


def test_building_without_onnx_says_what_to_install(release_dir, hwr_process) -> None:
    result = hwr_process("trt", release_dir, "--target", "sm86", without=("onnx",))
    assert result.returncode == 2
    assert "looked into before it is built, which needs onnx: pip install 'hwr-export[rtx]'" in result.stderr


def test_exporting_without_torch_says_what_to_install(release_dir, hwr_process, tmp_path) -> None:
    result = hwr_process("onnx", release_dir, "-o", tmp_path / "r", without=("torch",))
    assert result.returncode == 2
    assert "pip install 'hwr-export[export]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_the_version_is_that_of_the_package() -> None:
    from importlib.metadata import version

    assert version("hwr-export") == hwr_export.__version__
