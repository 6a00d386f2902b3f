"""Engines from the real TensorRT-RTX builder, without a GPU."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import pytest

from hwr_export.engine.build import engine_from_onnx
from hwr_export.engine.options import release_profiles
from hwr_export.engine.plan import check_rtx_plan, read_rtx_header, read_rtx_layers
from hwr_export.engine.products import DEFAULT_TARGETS, load_product
from hwr_export.engine.stage import NOT_EXECUTED, EngineConfig, build_engines
from hwr_export.engine.targets import RTX_CAPABILITIES
from hwr_export.errors import EngineError, ReleaseError, UsageError
from hwr_export.qdq import quantized_layers
from hwr_export.release import Release
from tests.conftest import ROOT, one_json


def build(release: Release, model: bytes, target: str = "sm86"):
    return engine_from_onnx(model, load_product(None, [target]), [target], "ab" * 32, release_profiles(release.spec))


def test_engines_for_the_default_targets(release_dir: Path, hwr) -> None:
    result = hwr("trt", release_dir, "--json")
    assert result.exit_code == 0, result.output
    document = one_json(result.stdout)
    assert [e["targets"] for e in document["engines"]] == [[t] for t in ("sm80", "sm86", "sm89", "sm120")]
    release = Release.open(release_dir)
    source = release.onnx("fp32").sha256
    for engine in document["engines"]:
        assert engine["source_onnx_sha256"] == source
        assert engine["status"] == NOT_EXECUTED
        assert engine["profiles"] == [{"image": {"min": [1, 28, 28], "opt": [1, 28, 28], "max": [16, 28, 28]}}]
        assert json.loads((release_dir / f"{engine['path']}.json").read_text()) == engine
        plan = (release_dir / engine["path"]).read_bytes()
        header = read_rtx_header(plan)
        assert header.size_bytes == engine["size_bytes"] == len(plan)
        assert engine["product_version"] == header.version
        assert source.encode() in plan
    assert all(s.ok for s in release.verify())
    assert "built, not executed" in (release_dir / "MODEL_CARD.md").read_text()


def test_the_default_targets_are_known() -> None:
    assert set(DEFAULT_TARGETS) <= set(RTX_CAPABILITIES)


def test_two_names_of_one_capability_share_a_plan(release: Release) -> None:
    built = build_engines(release, EngineConfig(targets=("rtx-3090", "sm86")))["engines"]
    assert [(e["path"], e["targets"]) for e in built] == [("engines/model.fp32.sm86.engine", ["sm86"])]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (EngineConfig(targets=("RTX",)), "there is no target 'RTX'; there are: sm75, sm80, .*jetson-thor, native"),
        (
            EngineConfig(targets=("jetson-orin-nano",), product="tensorrt_rtx"),
            r"does not build for jetson-orin-nano \(sm87\), only for sm75, .*build on it: hwr-export trt RELEASE",
        ),
        (EngineConfig(targets=("sm87",)), "tensorrt builds for no other GPU than .*, not for sm87; copy the release"),
        (EngineConfig(targets=("h100", "sm86")), r"not for h100 \(sm90\)"),
        (EngineConfig(targets=("sm86",), product="tensorrt"), "of the machine it runs on, not for sm86"),
        (EngineConfig(targets=("native",)), r"tensorrt is not installed: pip install 'hwr-export\[trt\]'"),
        (EngineConfig(targets=("sm86",), max_batch=17), "--max-batch must be 1 to 16, .*export with a larger"),
        (EngineConfig(targets=("sm86",), max_batch=0), "--max-batch must be 1 to 16, .*got 0"),
        (EngineConfig(targets=("sm86",), opt_batches=(2,), max_batch=1), "--opt-batch must be 1 to 1, got 2"),
        (EngineConfig(targets=("sm86",), opt_batches=(1, 17)), "--opt-batch must be 1 to 16"),
    ],
)
def test_what_cannot_be_built_is_said_before_the_build(release: Release, config: EngineConfig, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build_engines(release, config)
    assert not (release.path / "engines").exists()


def test_a_parse_error_names_its_node(release: Release) -> None:
    model = onnx.load_from_string(release.read(release.onnx("fp32")))
    model.graph.node[3].op_type = "NoSuchOperator"
    model.graph.node[3].name = "conv_of_mine"
    with pytest.raises(EngineError, match=r"node \d+ 'conv_of_mine' \(NoSuchOperator\)"):
        build(release, model.SerializeToString())


@pytest.mark.parametrize("cut", [0, 1000])
def test_a_truncated_file_does_not_parse(release: Release, cut: int) -> None:
    with pytest.raises(EngineError, match="cannot parse the ONNX file"):
        build(release, release.read(release.onnx("fp32"))[:cut])


def test_a_changed_model_is_not_built(release: Release) -> None:
    (release.path / "model.fp32.onnx").write_bytes(b"x")
    with pytest.raises(ReleaseError, match="not the file the manifest vouches for"):
        build_engines(release, EngineConfig(targets=("sm86",)))


def test_a_failed_build_keeps_the_previous_engine(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    build_engines(release, EngineConfig(targets=("sm86",)))
    kept = Release.open(release.path).manifest

    def fails(*arguments, **named):
        raise EngineError("the builder gave up")

    monkeypatch.setattr("hwr_export.engine.stage.engine_from_onnx", fails)
    with pytest.raises(EngineError, match="gave up"):
        build_engines(release, EngineConfig(targets=("sm86", "sm89")))
    assert Release.open(release.path).manifest == kept
    assert all(s.ok for s in Release.open(release.path).verify())


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: d[:-1], "was cut off or extended"),
        (lambda d: d[:40], "not a TensorRT-RTX plan"),
        (lambda d: b"ftrt" + d[4:], "not a TensorRT-RTX plan"),
        (lambda d: d.replace(b"ab" * 32, b"cd" * 32), "does not carry the hash"),
    ],
)
def test_damaged_plans_are_refused(release: Release, damage, message: str) -> None:
    plan = build(release, release.read(release.onnx("fp32"))).data
    check_rtx_plan(plan, "ab" * 32)
    with pytest.raises(EngineError, match=message):
        check_rtx_plan(damage(plan), "ab" * 32)


def test_progress_is_reported(release: Release) -> None:
    steps = []
    engine_from_onnx(
        release.read(release.onnx("fp32")),
        load_product(None, ["sm86"]),
        ["sm86"],
        "ab" * 32,
        release_profiles(release.spec),
        progress=lambda phase, done, of: steps.append((phase, done, of)),
    )
    assert steps
    assert all(0 <= done <= max(of, done) for _, done, of in steps)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_command_leaves_the_release_as_it_was(release_dir: Path, number: int) -> None:
    before = Release.open(release_dir).manifest
    command = [sys.executable, "-m", "hwr_export", "trt", release_dir]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, env=os.environ | {"PYTHONUNBUFFERED": "1"})
    process.stderr.readline()  # the first "building ..."
    time.sleep(0.02)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    after = Release.open(release_dir)
    assert all(s.ok for s in after.verify())
    if process.returncode != 0:
        assert after.manifest == before
        assert b"Traceback" not in stderr
        assert process.returncode == (130 if number == signal.SIGINT else -9)


def test_the_int8_plan_computes_in_int8(quantized: Release) -> None:
    said: list[str] = []
    built = build_engines(quantized, EngineConfig(precisions=("int8",)), said.append)["engines"]
    layers = set(quantized_layers(onnx.load_model_from_string(quantized.read(quantized.onnx("int8")))))
    assert len(layers) > 5
    assert [e["targets"][0] for e in built] == list(DEFAULT_TARGETS)
    for engine in built:
        assert {n for n, kind in engine["layers"]["input_types"].items() if kind == "int8"} == layers
        assert engine["layers"]["in_float"] == []
        assert "undocumented" in engine["layers"]["read_by"]
    assert not any(line.startswith("warning") for line in said)


def test_a_quantised_layer_that_runs_in_float_is_said(quantized: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    """As TensorRT-RTX 1.7.1 builds after a refusal; here one layer of what was read is changed to that."""
    monkeypatch.setattr(
        "hwr_export.engine.stage.read_rtx_layers", lambda data: read_rtx_layers(data) | {"stem.0": "float"}
    )
    said: list[str] = []
    (engine,) = build_engines(quantized, EngineConfig(targets=("sm86",), precisions=("int8",)), said.append)["engines"]
    assert engine["layers"]["in_float"] == ["stem.0"]
    assert "warning: engines/model.int8.sm86.engine computes in float what the file quantises: stem.0" in said


def test_one_plan_for_several_targets(release_dir: Path, hwr) -> None:
    names = ("rtx-3090", "rtx-4090", "rtx-5090")
    result = hwr("trt", release_dir, *(x for n in names for x in ("--target", n)), "--together", "--json")
    assert result.exit_code == 0, result.stderr
    (engine,) = one_json(result.stdout)["engines"]
    assert engine["path"] == "engines/model.fp32.sm86-sm89-sm120.engine"
    assert engine["targets"] == ["sm86", "sm89", "sm120"]
    assert set(engine["layers"]["input_types"].values()) == {"float"}
    assert engine["layers"]["in_float"] == []


def test_layers_of_another_version_are_not_guessed(release: Release) -> None:
    plan = build(release, release.read(release.onnx("fp32"))).data
    assert read_rtx_layers(plan)
    newer = plan[:24] + bytes((1, 8, 0, 1)) + plan[28:]
    assert read_rtx_layers(newer) is None
    check_rtx_plan(newer, "ab" * 32)  # `trt` with a newer TensorRT-RTX: the hash alone is asked for
    check_rtx_plan(newer[:-1], "ab" * 32)
    with pytest.raises(EngineError, match="does not carry the hash"):
        check_rtx_plan(newer, "cd" * 32)
