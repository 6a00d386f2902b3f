"""The build recipe: made where a release is built, repeated where it is built again. On fakes of TensorRT."""

from pathlib import Path

import pytest

from hwr_export.engine.options import BuildOptions
from hwr_export.engine.recipe import BuildRecipe, read_recipe
from hwr_export.engine.stage import EngineConfig, build_engines
from hwr_export.errors import ReleaseError, UsageError
from hwr_export.native import NativeConfig, build_native
from hwr_export.release import BUILD, Release
from tests.engine.test_api import VERSIONS
from tests.machine import Machine


def test_the_recipe_travels_with_the_release(release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_recipe(release) == BuildRecipe()
    build_engines(release, EngineConfig(targets=("sm86",), opt_batches=(1, 8), max_batch=12))
    recipe = BuildRecipe(opt_batches=(1, 8), max_batch=12)
    assert read_recipe(release) == recipe
    Machine(monkeypatch, tmp_path, VERSIONS[0])
    (engine,) = build_native(release, NativeConfig())["engines"]
    batches = [[shape[0] for shape in profile["image"].values()] for profile in engine["profiles"]]
    assert batches == [[1, 1, 1], [2, 8, 12]]
    assert engine["parity"]["verdict"] == "PASS"
    assert set(engine["parity"]["batches"]) == {"1", "2", "7", "12", "13"}
    other = BuildRecipe(opt_batches=(2,))
    build_native(release, NativeConfig(recipe=other))
    assert read_recipe(release) == other


def test_a_recipe_of_another_version_is_refused(release: Release) -> None:
    with release.change() as change:
        change.write(BUILD, b'{"schema": 2}', "build")
    with pytest.raises(ReleaseError, match=r"build.json is no build recipe this version can read: schema: .*again"):
        read_recipe(release)


def test_every_option_is_in_the_recipe_and_changes_the_plan(
    release_dir: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, hwr
) -> None:
    Machine(monkeypatch, tmp_path, VERSIONS[1])
    assert hwr("trt", release_dir, "--native").exit_code == 0
    result = hwr("trt", release_dir, "--native", "--optimization-level", 5, "--workspace", 64, "--refittable")
    assert result.exit_code == 0, result.stderr
    options = read_recipe(Release.open(release_dir)).options
    assert (options.optimization_level, options.workspace_mib, options.refittable) == (5, 64, True)
    told = " ".join(result.stderr.split())
    assert "again: recipe's workspace_mib 1024 -> 64; recipe's optimization_level None -> 5;" in told
    assert "up to date" in hwr("trt", release_dir, "--native").stdout


def test_an_option_that_this_version_does_not_know_is_not_passed_over(release: Release) -> None:
    with release.change() as change:
        change.write(BUILD, b'{"schema": 1, "options": {"sparsity": true}}', "build")
    with pytest.raises(ReleaseError, match=r"build recipe this version can read: options.sparsity: .*; run trt with"):
        read_recipe(release)


def test_a_plan_without_weights_is_refused_before_the_build(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    machine = Machine(monkeypatch, tmp_path, VERSIONS[0])
    recipe = BuildRecipe(options=BuildOptions(strip_weights=True))
    with pytest.raises(UsageError, match=r"a plan without weights cannot be proved, .*leave out --strip-weights"):
        build_native(release, NativeConfig(recipe=recipe))
    assert machine.trt._calls == []
