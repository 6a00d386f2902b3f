import numpy as np
import pytest

from hwr_export import doctor
from hwr_export.errors import RunnerError
from hwr_export.files import sha256_bytes
from tests.conftest import ROOT, one_json


def test_what_is_installed_here_runs(hwr) -> None:
    result = hwr("doctor", "--json")
    assert result.exit_code == 0, result.stdout
    document = one_json(result.stdout)
    status = {b["backend"]: b["status"] for b in document["backends"]}
    assert status == {
        "eager": "runs",
        "onnxruntime/CPU": "runs",
        "openvino": "runs",
        "tensorrt_rtx": "runs",
        "tensorrt": "absent",
    }
    assert {b["fix"] for b in document["backends"] if b["status"] == "absent"} == {"pip install 'hwr-export[trt]'"}
    built = next(b["detail"] for b in document["backends"] if b["backend"] == "tensorrt_rtx")
    assert "not executed" in built


def test_a_listed_provider_that_falls_back_is_a_failure(monkeypatch: pytest.MonkeyPatch, hwr) -> None:
    """As onnxruntime-gpu does on a machine without a GPU."""
    import onnxruntime

    monkeypatch.setattr(
        onnxruntime, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    with pytest.warns(UserWarning, match="not in available provider names"):
        result = hwr("doctor", "--json")
    assert result.exit_code == 1
    document = one_json(result.stdout)
    assert document["problems"] == [
        "onnxruntime/CUDA: ONNX Runtime was asked for CUDAExecutionProvider and came up on CPUExecutionProvider"
    ]


def test_both_builds_of_onnxruntime_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_version", lambda name: "1.0")
    assert any("both installed" in p for p in doctor.examine()["problems"])


def test_a_backend_that_answers_wrongly_is_a_failure() -> None:
    with pytest.raises(RunnerError, match="answers wrongly"):
        doctor.check_probe(np.zeros((3, 2)))
    broken = doctor._backend("x", True, "cpu", lambda: doctor.check_probe(np.full((3, 2), np.nan)))
    assert broken["status"] == "fails"


def test_a_backend_that_cannot_be_imported_is_a_failure_with_a_fix() -> None:
    def check() -> str:
        raise ImportError("libopenvino.so: cannot open shared object file")

    found = doctor._backend("openvino", True, "openvino", check)
    assert found["status"] == "fails"
    assert "libopenvino.so" in found["detail"]
    assert "--force-reinstall" in found["fix"]


def test_a_device_without_torch_is_healthy(hwr_process) -> None:
    result = hwr_process("doctor", "--json", without=("torch", "onnx"))
    assert one_json(result.stdout)["ok"] is False  # installed here, and made impossible to import
    assert "torch" in result.stdout


def test_the_probe_is_what_its_script_makes() -> None:
    import importlib.util

    spec = importlib.util.spec_from_file_location("make_probe", ROOT / "scripts" / "make_probe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert sha256_bytes(module.probe()) == sha256_bytes(doctor.probe_model())
