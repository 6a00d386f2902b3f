"""What a build is told: profiles and options, asked of the real builder too, and what each product refuses."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.engine.build import engine_from_onnx, set_options
from hwr_export.engine.options import (
    DEFAULT_OPTIONS,
    NOT_WITH_RTX,
    BuildOptions,
    Profile,
    batch_ranges,
    release_profiles,
)
from hwr_export.engine.products import load_product
from hwr_export.engine.stage import EngineConfig, build_engines
from hwr_export.errors import EngineError
from hwr_export.release import Release
from tests.conftest import ROOT, one_json


@given(st.integers(1, 300), st.data())
def test_every_batch_has_one_profile_and_every_wanted_one_is_the_best_of_its_own(max_batch: int, data) -> None:
    opts = data.draw(st.lists(st.integers(1, max_batch), max_size=5))
    ranges = batch_ranges(opts, max_batch)
    assert [n for low, _, high in ranges for n in range(low, high + 1)] == list(range(1, max_batch + 1))
    assert [opt for _, opt, _ in ranges] == (sorted(set(opts)) or [1])
    assert all(low <= opt <= high for low, opt, high in ranges)


def test_the_profiles_that_the_documentation_shows() -> None:
    assert batch_ranges((), 256) == [(1, 1, 256)]
    assert batch_ranges((256, 1, 32), 256) == [(1, 1, 1), (2, 32, 32), (33, 256, 256)]
    assert batch_ranges((8,), 1024) == [(1, 8, 1024)]
    assert batch_ranges((), 1) == [(1, 1, 1)]


def test_the_sidecar_tells_every_profile(release_dir: Path, hwr) -> None:
    words = ("--target", "sm86", "--opt-batch", "16", "--opt-batch", "1")
    (engine,) = one_json(hwr("trt", release_dir, *words, "--json").stdout)["engines"]
    assert [[shape[0] for shape in p["image"].values()] for p in engine["profiles"]] == [[1, 1, 1], [2, 16, 16]]
    (one,) = one_json(hwr("trt", release_dir, "--target", "sm86", "--max-batch", "1", "--json").stdout)["engines"]
    assert one["profiles"] == [{"image": {kind: [1, 28, 28] for kind in ("min", "opt", "max")}}]
    assert one["size_bytes"] < engine["size_bytes"]


@pytest.mark.parametrize(
    ("profile", "message"),
    [
        ({"image": ((2, 28, 28), (1, 28, 28), (16, 28, 28))}, r"'image' is \(2, 28, 28\) to \(16, 28, 28\), best at"),
        ({"image": ((1, 28), (1, 28), (16, 28))}, r"the graph takes \(-1, 28, 28\), where -1 is any"),
        ({"image": ((1, 32, 28), (1, 32, 28), (16, 32, 28))}, r"give shapes of that form"),
        ({"image": ((-1, 28, 28), (1, 28, 28), (16, 28, 28))}, r"give shapes of that form"),
        ({}, r"for \[\], and the graph's inputs are \{'image': \(-1, 28, 28\)\}; give"),
        ({"picture": ((1, 28, 28), (1, 28, 28), (16, 28, 28))}, r"for \['picture'\], and the graph's"),
    ],
)
def test_a_profile_that_does_not_fit_the_graph(release: Release, profile: Profile, message: str) -> None:
    product = load_product(None, ["sm86"])
    with pytest.raises(EngineError, match=message):
        engine_from_onnx(release.read(release.onnx("fp32")), product, ["sm86"], "ab" * 32, [profile])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--workspace", "0"), "--workspace must be 1 MiB or more, got 0"),
        (("--optimization-level", "6"), "--optimization-level must be 0 to 5, got 6"),
        (("--optimization-level", "3"), "--optimization-level does not go with tensorrt_rtx: plans of all levels"),
        (
            ("--version-compatible",),
            "--version-compatible does not go with tensorrt_rtx: the flag needs a lean runtime",
        ),
        (("--hardware-compatible",), "it calls this unsupported; name all the GPUs with --target and add --together"),
        (("--strip-weights",), "--strip-weights does not go with tensorrt_rtx: its builder calls the GPU"),
        (("--refittable",), "--refittable does not go with tensorrt_rtx: its builder calls the GPU"),
        (("--timing-cache", "timings"), "--timing-cache does not go with tensorrt_rtx: it times nothing"),
        (("--timing-cache", "no/such/folder/timings"), "no/such/folder is no directory that can be written to"),
        (("--timing-cache", "."), "--timing-cache . cannot be read: Is a directory"),
    ],
)
def test_what_a_product_does_not_do_is_refused_before_the_build(
    release_dir: Path, hwr, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hwr_export.engine.stage.engine_from_onnx", lambda *_: pytest.fail("the builder was run"))
    result = hwr("trt", release_dir, "--target", "sm86", *words)
    assert result.exit_code == 2
    assert sentence in result.stderr
    assert not (release_dir / "engines").exists()


def test_every_option_is_refused_or_told(release: Release) -> None:
    """An option added to BuildOptions is one that TensorRT-RTX refuses, or one that its sidecars tell."""
    names = {field.name for field in fields(BuildOptions)}
    assert set(NOT_WITH_RTX) < names
    assert names - set(NOT_WITH_RTX) == {"workspace_mib", "log_level"}
    assert set(DEFAULT_OPTIONS.document()) == names - {"timing_cache", "log_level"}
    (engine,) = build_engines(release, EngineConfig(("sm86",), options=BuildOptions(workspace_mib=256)))["engines"]
    assert engine["options"] == DEFAULT_OPTIONS.document() | {"workspace_mib": 256}


# What TensorRT-RTX 1.7.1 does with what we refuse: in a process of its own, for what fails may spoil what follows.
TRIED = """
import sys, tensorrt_rtx as trt
from pathlib import Path
def build(change):
    builder = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR))
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    trt.OnnxParser(network, builder.logger).parse(Path(sys.argv[1]).read_bytes())
    config = builder.create_builder_config()
    profile = builder.create_optimization_profile()
    profile.set_shape("image", (1, 28, 28), (1, 28, 28), (16, 28, 28))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    change(config)
    plan = builder.build_serialized_network(network, config)
    return plan and bytes(plan)
def set_level(level): return lambda config: setattr(config, "builder_optimization_level", level)
def set_flag(name): return lambda config: config.set_flag(getattr(trt.BuilderFlag, name))
plain = build(lambda config: None)
assert plain and {len(build(set_level(level))) for level in range(6)} == {len(plain)}  # internal names may differ
for name in sys.argv[2:]:
    assert build(set_flag(name)) is None, name
"""


def test_the_reasons_are_what_the_builder_does(release: Release) -> None:
    flags = ("VERSION_COMPATIBLE", "STRIP_PLAN", "REFIT", "REFIT_IDENTICAL")
    command = [sys.executable, "-c", TRIED, release.path / "model.fp32.onnx", *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


class NoCache:
    """A builder's configuration that takes no timing cache, or none of another machine."""

    def __init__(self, cache: object) -> None:
        self.cache = cache

    def create_timing_cache(self, data: bytes) -> object:
        assert data == b"timings"
        return self.cache

    def set_timing_cache(self, cache: object, ignore_mismatch: bool) -> bool:
        assert cache is self.cache
        assert not ignore_mismatch
        return False


@pytest.mark.parametrize("cache", [None, object()])
def test_a_timing_cache_of_another_gpu_or_version_is_refused(cache: object) -> None:
    import tensorrt_rtx

    with pytest.raises(EngineError, match="does not take the timing cache: another version made it, or another GPU"):
        set_options(tensorrt_rtx, NoCache(cache), BuildOptions(timing_cache=b"timings"))


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        (BuildOptions(), set()),
        (BuildOptions(version_compatible=True), {"VERSION_COMPATIBLE"}),
        (BuildOptions(refittable=True), {"REFIT"}),
        (BuildOptions(strip_weights=True), {"STRIP_PLAN", "REFIT_IDENTICAL"}),
        (BuildOptions(strip_weights=True, refittable=True), {"STRIP_PLAN", "REFIT"}),
    ],
)
def test_what_tensorrt_itself_is_told(options: BuildOptions, flags: set[str]) -> None:
    """Its bindings do not load here; a configuration of TensorRT-RTX has the same members."""
    import tensorrt_rtx as trt

    def told(options: BuildOptions):
        config = trt.Builder(trt.Logger(trt.Logger.INTERNAL_ERROR)).create_builder_config()
        set_options(trt, config, options)
        return config, {name for name, flag in trt.BuilderFlag.__members__.items() if config.get_flag(flag)}

    (plain, by_itself), (config, found) = told(BuildOptions()), told(options)
    assert found - by_itself == flags
    assert config.builder_optimization_level == plain.builder_optimization_level == 3
    config, _ = told(replace(options, optimization_level=5))
    assert config.builder_optimization_level == 5


@pytest.mark.parametrize(("level", "kinds"), [(None, set()), ("warning", set()), ("info", {"info"})])
def test_the_builders_own_log(release: Release, capfd: pytest.CaptureFixture, level, kinds: set[str]) -> None:
    product = load_product(None, ["sm86"])
    options = BuildOptions(log_level=level)
    engine_from_onnx(
        release.read(release.onnx("fp32")), product, ["sm86"], "ab" * 32, release_profiles(release.spec), options
    )
    out, err = capfd.readouterr()
    assert out == ""
    assert {line.split()[1].rstrip(":") for line in err.splitlines() if line.startswith("[tensorrt_rtx]")} == kinds


# After a refusal TensorRT-RTX 1.7.1 builds the next plan wrongly; each of these is a process of its own.
REFUSED = """
import sys
from pathlib import Path
from hwr_export.engine import build
from hwr_export.engine.options import release_profiles
from hwr_export.engine.plan import read_rtx_layers
from hwr_export.engine.products import load_product
from hwr_export.errors import EngineError
from hwr_export.release import Release
release = Release.open(Path(sys.argv[1]))
def types(target):
    plan = build.engine_from_onnx(
        release.read(release.onnx("int8")), load_product(None, [target]), [target], "ab" * 32,
        release_profiles(release.spec),
    )
    return set(read_rtx_layers(plan.data).values())
assert types("sm86") == {"int8"}
try:
    types("sm75")
except EngineError as err:
    assert "FP32 GEMM is not supported" in str(err), err
else:
    raise SystemExit("sm75 was built")
if sys.argv[2] == "without the guard":
    build._refused.clear()
    print(sorted(types("sm86")), sorted(types("sm86")))
else:
    types("sm86")
"""


def after_a_refusal(release: Release, how: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", REFUSED, release.path, how]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)


def test_nothing_is_built_in_a_process_after_a_refusal(quantized: Release) -> None:
    done = after_a_refusal(quantized, "with it")
    assert done.returncode == 1
    assert "tensorrt_rtx has refused a build in this process" in done.stderr
    assert "FP32 GEMM is not supported" in done.stderr
    assert "build in a new process" in done.stderr


def test_why_nothing_is_built_after_a_refusal(quantized: Release) -> None:
    """Where this fails, a newer TensorRT-RTX has mended it and the guard may go."""
    done = after_a_refusal(quantized, "without the guard")
    assert done.stdout.strip() == "['float', 'int8'] ['int8']", done.stderr


def test_too_little_workspace_says_what_to_do(release: Release) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "hwr_export", "trt", release.path, "--target", "sm86", "--workspace", "1"],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.returncode == 1
    assert "; allow more than 1 MiB of it" in done.stderr
    assert not (release.path / "engines").exists()
