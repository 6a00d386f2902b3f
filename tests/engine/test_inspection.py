"""Plans looked into: without a GPU the bytes of a real one, whole and damaged; with one what the inspector says."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.engine.build import Plan
from hwr_export.engine.inspector import input_types, inspect_layers
from hwr_export.engine.options import BuildOptions
from hwr_export.engine.plan import CAPABILITIES, READABLE, read_rtx_header, widest
from hwr_export.engine.products import Product, load_product
from hwr_export.engine.stage import EngineConfig, build_engines
from hwr_export.errors import EngineError
from hwr_export.release import Release
from tests.conftest import one_json

NAME = "model.int8.sm86-sm120.engine"


@pytest.fixture(scope="module")
def engines(_quantized: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The engines of a release: int8, one plan for two targets with three profiles."""
    path = tmp_path_factory.mktemp("engines") / "tiny"
    shutil.copytree(_quantized, path)
    targets = ("sm86", "rtx-5090")
    build_engines(Release.open(path), EngineConfig(targets, None, (1, 4, 16), precisions=("int8",), together=True))
    return path / "engines"


@pytest.fixture
def plan(engines: Path, tmp_path: Path) -> Path:
    """A plan of one's own with its sidecar."""
    for name in (NAME, f"{NAME}.json"):
        shutil.copy(engines / name, tmp_path / name)
    return tmp_path / NAME


def test_a_plan_tells_what_it_is(plan: Path, engines: Path, hwr) -> None:
    result = hwr("inspect", plan, "--json")
    assert result.exit_code == 0, result.output
    document = one_json(result.stdout)
    source = Release.open(engines.parent).onnx("int8").sha256
    assert document["source_onnx_sha256"] == source
    assert document["targets"] == ["sm86", "sm120"]
    assert (document["product"], document["size_bytes"]) == ("tensorrt_rtx", plan.stat().st_size)
    assert document["product_version"].startswith(READABLE)
    assert "undocumented means" in document["read_by"]
    layers = {layer["name"]: layer["input_type"] for layer in document["layers"]}
    assert len(layers) > 5
    assert set(layers.values()) == {"int8"}
    assert layers == json.loads(plan.with_name(f"{NAME}.json").read_text())["layers"]["input_types"]
    assert (document["sidecar"], document["problems"]) == (True, [])

    shown = " ".join(hwr("inspect", plan).stdout.split())
    assert f"for sm86, sm120, {document['size_bytes']:,} bytes: whole." in shown
    assert "Its sidecar agrees." in shown


def test_a_plan_alone_tells_as_much(plan: Path, hwr) -> None:
    plan.with_name(f"{NAME}.json").unlink()
    result = hwr("inspect", plan)
    assert result.exit_code == 0
    assert "sidecar" not in result.stdout


@pytest.mark.parametrize("target", CAPABILITIES)
def test_the_capabilities_in_the_header_are_those_that_were_asked_for(engines: Path, target: str) -> None:
    data = bytearray((engines / NAME).read_bytes()[:64])
    data[16:24] = struct.pack("<Q", 64)
    data[32:36] = struct.pack("<I", 1 << CAPABILITIES.index(target))
    assert read_rtx_header(bytes(data)).targets == (target,)


def test_the_header_of_every_target_that_is_built(release: Release) -> None:
    targets = ("sm80", "sm86", "sm89", "sm120", "sm121")
    for engine in build_engines(release, EngineConfig(targets))["engines"]:
        data = (release.path / engine["path"]).read_bytes()
        assert list(read_rtx_header(data).targets) == engine["targets"]


def header_with(position: int, replacement: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:position] + replacement + data[position + len(replacement) :]


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: d[:-1], r"bytes: it was cut off or extended|was cut off or extended; build it again"),
        (lambda d: d + b"\0", "was cut off or extended; build it again"),
        (lambda d: d[:40], "it has 40 bytes and starts with b'vtrt', expected b'vtrt' and a header of 64 bytes"),
        (lambda d: b"", "it has 0 bytes and starts with b''"),
        (lambda d: b"\x08\x0a" + d[2:], r"starts with b'\x08\nrt', expected b'vtrt'"),
        (lambda d: b"ftrt" + d[4:], "it is one of TensorRT 1.7.1.116, which can be looked into on the GPU"),
        (lambda d: b"ftrt", "it is one of TensorRT, which can be looked into on the GPU that it was built on alone"),
        (
            header_with(24, bytes((1, 8, 0, 2))),
            "it is a plan of TensorRT-RTX 1.8.0.2, and only those of 1.7.1.x can be read without a GPU",
        ),
        (header_with(24, bytes((2, 0, 0, 0))), "it is a plan of TensorRT-RTX 2.0.0.0, and only"),
        (header_with(28, b"????"), "the plan's header is damaged at bytes 28-35: 3f 3f 3f 3f"),
        (header_with(32, bytes(4)), "the plan's header is damaged at bytes 28-35: 76 74 72 74 00 00 00 00"),
        (header_with(32, b"\xff\xff\xff\xff"), "the plan's header is damaged"),
        (header_with(20, b"\x01"), "the plan says it has 4,29"),
    ],
)
def test_what_is_no_whole_plan_is_refused_in_a_sentence(
    plan: Path, hwr, damage: Callable[[bytes], bytes], sentence: str
) -> None:
    plan.write_bytes(damage(plan.read_bytes()))
    result = hwr("inspect", plan)
    assert result.exit_code == 1
    assert any(part in result.stderr for part in sentence.split("|")), result.stderr
    assert str(plan) in result.stderr
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


@given(st.binary(max_size=200))
def test_a_header_of_any_bytes_is_whole_or_refused(data: bytes) -> None:
    for candidate in (data, b"vtrt" + data, b"vtrt" + data[:12] + struct.pack("<Q", len(data) + 12) + data[12:]):
        try:
            header = read_rtx_header(candidate)
        except EngineError:
            continue
        assert header.size_bytes == len(candidate)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"targets": ["sm86"]}, "its sidecar says targets ['sm86'], the plan ['sm86', 'sm120']"),
        ({"product_version": "1.6.0.1"}, "its sidecar says product_version 1.6.0.1, the plan 1.7.1"),
        ({"source_onnx_sha256": "0" * 64}, "its sidecar says source_onnx_sha256 000000"),
        ({"sha256": "0" * 64}, "its sidecar says sha256 000000"),
    ],
)
def test_a_sidecar_that_tells_of_another_plan(plan: Path, hwr, change: dict, problem: str) -> None:
    sidecar = plan.with_name(f"{NAME}.json")
    sidecar.write_text(json.dumps(json.loads(sidecar.read_text()) | change))
    result = hwr("inspect", plan)
    assert result.exit_code == 1
    assert f"Problem: {problem}" in result.stdout
    assert "agrees" not in result.stdout


@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_sidecar_that_is_none(plan: Path, hwr, content: str) -> None:
    plan.with_name(f"{NAME}.json").write_text(content)
    result = hwr("inspect", plan)
    assert result.exit_code == 2
    assert "build the plan again" in result.stderr


def test_a_file_that_is_not_there(tmp_path: Path, hwr) -> None:
    result = hwr("inspect", tmp_path / "none.engine")
    assert result.exit_code == 2
    assert "none.engine cannot be read: No such file" in result.stderr


def test_a_plan_that_somebody_else_built_carries_no_hash(plan: Path, hwr) -> None:
    source = json.loads(plan.with_name(f"{NAME}.json").read_text())["source_onnx_sha256"].encode()
    plan.with_name(f"{NAME}.json").unlink()
    plan.write_bytes(plan.read_bytes().replace(source, b"Unnamed network: no hash at all in this name".ljust(64, b".")))
    result = hwr("inspect", plan)
    assert result.exit_code == 0
    assert "It carries no hash of the ONNX file it was built from." in result.stdout


def test_a_layer_is_int8_only_where_it_is_nothing_else() -> None:
    assert widest({"int8"}) == "int8"
    assert widest({"int8", "half"}) == "half"
    assert widest({"int8", "half", "float"}) == "float"
    assert widest({"uint8"}) == "uint8"
    assert widest(set()) == "unknown"


# -- on a GPU: written against the API and NVIDIA's documents, and not executed on one ---------------------------------


def test_without_a_gpu_the_product_says_why(plan: Path, hwr) -> None:
    result = hwr("inspect", plan, "--gpu")
    assert result.exit_code == 1
    assert "cannot load the plan here" in result.stderr
    assert "CUDA driver version is insufficient" in result.stderr


def test_a_plan_of_tensorrt_needs_tensorrt(plan: Path, hwr) -> None:
    plan.write_bytes(b"ftrt" + plan.read_bytes()[4:])
    result = hwr("inspect", plan, "--gpu")
    assert result.exit_code == 2
    assert "tensorrt is not installed: pip install 'hwr-export[trt]'" in result.stderr


def product_that_says(text: str) -> Product:
    """A product whose plans load and whose inspector says this; all else is TensorRT-RTX's."""
    trt = load_product(None, ["sm86"]).module
    inspector = SimpleNamespace(get_engine_information=lambda form: text)
    engine = SimpleNamespace(create_engine_inspector=lambda: inspector)
    runtime = SimpleNamespace(deserialize_cuda_engine=lambda plan: engine)
    module = SimpleNamespace(
        ILogger=trt.ILogger,
        LayerInformationFormat=trt.LayerInformationFormat,
        Runtime=lambda logger: runtime,
        __version__="10.3.0",
    )
    return Product("tensorrt", module)  # type: ignore[arg-type]


def layer(name: str, read: dict, written: dict, metadata: str) -> dict:
    return {"Name": name, "LayerType": "CaskConvolution", "Inputs": [read], "Outputs": [written], "Metadata": metadata}


def test_the_inspectors_table_of_both_versions() -> None:
    """The wording of 10 as NVIDIA's own answers show it (TensorRT issue 4020), that of 11 as in its migration guide."""
    int8, fp32 = {"Format/Datatype": "Row major Int8 format"}, {"Format/Datatype": "Row major linear FP32"}
    newer = {"DataType": "Half", "Format": "Row major linear FP16 format (kLINEAR)"}
    layers = [
        layer("stem + relu", int8, int8, "[ONNX Layer: stem]\x1f[ONNX Layer: relu]"),
        layer("block", fp32, newer, "[ONNX Layer: block]"),
        layer("block, again", int8, {}, "[ONNX Layer: block]"),
        "a plan without detail",
    ]
    rows = inspect_layers(product_that_says(json.dumps({"Layers": layers})), b"")
    assert [(r["input_type"], r["output_type"]) for r in rows] == [
        ("int8", "int8"),
        ("float", "half"),
        ("int8", "unknown"),
        ("unknown", "unknown"),
    ]
    assert input_types(rows) == {"stem": "int8", "relu": "int8", "block": "float"}


@pytest.mark.parametrize(
    "text", ["", "no JSON", "{}", '{"Layers": 3}', '{"Layers": [{}]}', '{"Layers": [{"Name": 3, "Metadata": 4}]}']
)
def test_an_inspector_that_answers_otherwise(text: str) -> None:
    with pytest.raises(EngineError, match=r"the engine inspector of tensorrt 10\.3\.0 answered in a form"):
        inspect_layers(product_that_says(text), b"")


def test_what_the_stage_makes_of_tensorrt_itself(
    quantized: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its builder and its inspector are played: one timing cache goes through all builds, and a float layer is told."""
    release = quantized
    product = product_that_says(
        json.dumps(
            {
                "Layers": [
                    layer("stem", {"Format/Datatype": "Row major linear FP32"}, {}, "[ONNX Layer: stem.0]"),
                    layer("rest", {"Format/Datatype": "Int8"}, {}, "[ONNX Layer: classifier]"),
                ]
            }
        )
    )
    given_caches = []

    def build(data, product, targets, sha256, profiles, options, progress) -> Plan:
        given_caches.append(options.timing_cache)
        return Plan(data[:100], 0.1, profiles, options.timing_cache + b"+")

    monkeypatch.setattr("hwr_export.engine.stage.load_product", lambda *_: product)
    monkeypatch.setattr("hwr_export.engine.stage.engine_from_onnx", build)
    cache = tmp_path / "timings"
    said: list[str] = []
    config = EngineConfig(("native",), timing_cache=cache, options=BuildOptions(optimization_level=5, refittable=True))
    for caches in ([b"", b"+"], [b"++", b"+++"]):
        given_caches.clear()
        engines = {e["precision"]: e for e in build_engines(release, config, said.append)["engines"]}
        assert given_caches == caches
        assert cache.read_bytes() == caches[-1] + b"+"
        release = Release.open(release.path)
    assert engines["int8"]["options"]["optimization_level"] == 5
    assert engines["int8"]["options"]["refittable"] is True
    assert engines["int8"]["layers"] == {
        "read_by": "the engine inspector",
        "input_types": {"stem.0": "float", "classifier": "int8"},
        "in_float": ["stem.0"],
    }
    assert engines["fp32"]["layers"]["in_float"] == []
    assert "warning: engines/model.int8.native.engine computes in float what the file quantises: stem.0" in said


def test_a_failed_build_keeps_the_timing_cache(
    quantized: Release, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timings").write_bytes(b"of before")

    def build(*_: object) -> Plan:
        raise EngineError("the builder gave up")

    monkeypatch.setattr("hwr_export.engine.stage.load_product", lambda *_: product_that_says(""))
    monkeypatch.setattr("hwr_export.engine.stage.engine_from_onnx", build)
    with pytest.raises(EngineError, match="gave up"):
        build_engines(quantized, EngineConfig(("native",), timing_cache=tmp_path / "timings"))
    assert (tmp_path / "timings").read_bytes() == b"of before"
