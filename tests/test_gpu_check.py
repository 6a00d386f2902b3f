"""scripts/gpu_check.sh and jetson_check.sh where there is no GPU: they end, and say why each step is absent.

What a step does on a GPU is tested nowhere but on one. How the script judges what it runs is tested here.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_docs import load_script

OF_THIS_CHECKOUT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture
def check(monkeypatch: pytest.MonkeyPatch):
    script = load_script("gpu_check")
    monkeypatch.setattr(script, "STEP_SECONDS", 5)
    return script


@pytest.fixture
def bare(tmp_path: Path) -> dict[str, str]:
    """An environment in which no tool of NVIDIA's is found, whatever machine runs the tests."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("bash", "dirname", "env"):
        (tools / name).symlink_to(shutil.which(name))
    return os.environ | {"PATH": str(tools), "PYTHON": sys.executable}


def run(name: str, out: Path, env: dict[str, str]) -> tuple[subprocess.CompletedProcess[str], dict]:
    command = [ROOT / "scripts" / name, "--here", "-o", out]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env, cwd=out.parent, timeout=300)
    return done, json.loads(out.read_text())


def test_without_a_gpu_each_step_says_why_it_is_absent(tmp_path: Path, bare: dict[str, str]) -> None:
    done, document = run("gpu_check.sh", tmp_path / "check.json", bare)
    assert done.returncode == 3, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("UNDECIDED: nothing ran on a GPU; written to ")
    assert document["verdict"] == "UNDECIDED: nothing ran on a GPU"
    assert document["kind"] == "gpu"
    assert document["gpu"] == []
    assert document["versions"]["numpy"]
    steps = {step["name"]: step for step in document["steps"]}
    assert {n for n, s in steps.items() if s["status"] == "ok"} == {"doctor", "fetch", "tensorrt_rtx/build"}
    assert [e["targets"] for e in steps["tensorrt_rtx/build"]["result"]["engines"]][:2] == [["sm80"], ["sm86"]]
    for name in ("train", "export", "onnxruntime-cuda/parity", "onnxruntime-tensorrt/bench", "tensorrt_rtx/native"):
        assert steps[name]["status"] == "absent"
        assert steps[name]["reason"] == "there is no NVIDIA GPU here, or no driver: nvidia-smi is not installed"
        assert f"absent  {name}: there is no NVIDIA GPU here" in done.stdout
    for name in ("tensorrt/native", "tensorrt/parity", "tensorrt/bench"):
        assert steps[name]["reason"] == "tensorrt is not installed"
    assert all(s["seconds"] == 0 and s["result"] is None for s in steps.values() if s["status"] == "absent")
    assert str(ROOT) not in json.dumps(document)


def test_where_there_is_no_jetson(tmp_path: Path, bare: dict[str, str]) -> None:
    done, document = run("jetson_check.sh", tmp_path / "check.json", bare)
    assert done.returncode == 3, done.stdout + done.stderr
    assert document["kind"] == "jetson"
    assert document["jetson"]["before"]["power_mode"] == {"status": "absent", "reason": "nvpmodel is not installed"}
    assert document["jetson"]["after"]["clocks"] == {"status": "absent", "reason": "jetson_clocks is not installed"}
    steps = {step["name"]: step for step in document["steps"]}
    assert not any(name.startswith("tensorrt_rtx") for name in steps)  # no plan of it runs on a Jetson
    assert steps["tensorrt/native"]["reason"] == "tensorrt is not installed"
    assert steps["train"]["reason"] == "this is no Jetson: /etc/nv_tegra_release is not there"


def test_a_place_that_cannot_be_written(tmp_path: Path, bare: dict[str, str]) -> None:
    command = [ROOT / "scripts" / "gpu_check.sh", "--here", "-o", tmp_path / "no" / "check.json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=bare)
    assert done.returncode == 2
    assert "check.json cannot be written; name another place with -o" in done.stderr


# -- how a step is judged ----------------------------------------------------------------------------------------------


def python(code: str) -> list[str]:
    return ["python", "-c", code]


@pytest.mark.parametrize(
    ("code", "must_say", "reason"),
    [
        ("import sys; sys.exit('out of memory')", "", "exit code 1: out of memory"),
        ("import os; os.kill(os.getpid(), 11)", "", "it was killed by signal 11"),
        ("print('{')", "", "exit code 1: it did not print JSON: {"),
        ("import sys; print('on cpu', file=sys.stderr)", "on cuda", "it did not say 'on cuda': on cpu"),
        ("import time; time.sleep(60)", "", "it did not end within 5 s"),
    ],
)
def test_a_failure_has_its_reason_and_hides_nothing(check, code: str, must_say: str, reason: str) -> None:
    bad = check.Step("bad", python(code), must_say=must_say)
    after = check.Step("after", python("print('{\"n\": 1}')"))
    follower = check.Step("follower", python("print()"), needs="bad")
    check.run_all([bad, after, follower])
    assert (bad.status, bad.reason) == ("failed", reason)
    assert (after.status, after.result) == ("ok", {"n": 1})
    assert (follower.status, follower.reason) == ("absent", "bad is failed")
    assert check.verdict([bad, after, follower]) == ("FAIL: bad", 1)


def test_the_document_of_a_command_that_fails_is_kept(check) -> None:
    step = check.Step("parity", python('import sys; print(\'{"verdict": "FAIL"}\'); sys.exit(1)'))
    check.run(step)
    assert step.status == "failed"
    assert step.result == {"verdict": "FAIL"}


def test_only_what_ran_on_a_gpu_is_a_pass(check) -> None:
    def steps(**on_gpu: bool):
        made = [check.Step(name, python("pass"), on_gpu=there) for name, there in on_gpu.items()]
        check.run_all(made)
        return made

    assert check.verdict(steps(doctor=False, build=False)) == ("UNDECIDED: nothing ran on a GPU", 3)
    assert check.verdict(steps(doctor=False, train=True)) == ("PASS: train", 0)


def test_power_mode_and_clocks_are_recorded(check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With stand-ins that print what JetPack's tools print; tegrastats goes on until it is stopped."""
    for name, script in {
        "nvpmodel": "echo 'NV Power Mode: MAXN_SUPER'; echo 2",
        "jetson_clocks": "echo 'Error: run as root' >&2; exit 1",
        "tegrastats": "echo 'RAM 2000/7620MB GR3D_FREQ 0%'; sleep 60",
    }.items():
        (tmp_path / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    facts = check.jetson_facts()
    assert facts["power_mode"] == {"status": "ok", "lines": ["NV Power Mode: MAXN_SUPER", "2"]}
    assert facts["clocks"] == {"status": "failed", "reason": "Error: run as root"}
    assert facts["tegrastats"] == {"status": "ok", "lines": ["RAM 2000/7620MB GR3D_FREQ 0%"]}


def test_every_command_it_would_run_is_one_that_exists(check, tmp_path: Path) -> None:
    import click

    from hwr_export.cli import main as hwr_export
    from train.__main__ import main as train

    here = check.Here("", "", "", "", tuple(check.PROVIDERS.values()))
    steps = list(check.plan_steps(here, tmp_path, jetson=False))
    assert {"onnxruntime-cuda/parity", "tensorrt_rtx/native", "tensorrt/bench"} <= {s.name for s in steps}
    for step in steps:
        group = train if step.command[1:3] == ["-m", "train"] else hwr_export
        name, *arguments = step.command[3:]
        command = group.commands[name]
        with click.Context(command, parent=click.Context(group, **group.context_settings)) as context:
            command.parse_args(context, arguments)
