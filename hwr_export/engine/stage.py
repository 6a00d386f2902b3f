"""Release + targets -> engines and their sidecars in the release. An engine that was not run is marked so."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwr_export.card import write_card
from hwr_export.engine.build import Plan, engine_from_onnx
from hwr_export.engine.callbacks import Progress
from hwr_export.engine.inspector import INSPECTOR, input_types, inspect_layers
from hwr_export.engine.options import DEFAULT_OPTIONS, BuildOptions, Profile, release_profiles, require_options
from hwr_export.engine.plan import READ_BY, check_rtx_plan, read_rtx_layers
from hwr_export.engine.products import DEFAULT_TARGETS, PRODUCTS, Product, load_product
from hwr_export.engine.recipe import BuildRecipe, write_recipe
from hwr_export.engine.targets import NATIVE, RTX, TENSORRT, find_targets
from hwr_export.errors import UsageError
from hwr_export.files import json_bytes, sha256_bytes, write_atomic
from hwr_export.release import ENGINES, ManifestFile, Release, is_for
from hwr_export.spec import INPUT

NOT_EXECUTED = "built, not executed"


@dataclass(frozen=True)
class EngineConfig:
    """One plan for each target; `product` None chooses by target, `max_batch` None is the graph's own."""

    targets: tuple[str, ...] = ()
    product: str | None = None
    opt_batches: tuple[int, ...] = ()  # one profile for each; none: one that is optimal at 1
    max_batch: int | None = None
    precisions: tuple[str, ...] = ()  # none: every file that TensorRT takes
    together: bool = False  # one plan for all targets instead of one for each
    options: BuildOptions = DEFAULT_OPTIONS
    timing_cache: Path | None = None  # read if it is there, and written after the builds


def build_engines(
    release: Release,
    config: EngineConfig,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Build one plan a target and precision that TensorRT takes, then add all of them to the release in one step.

    What can be known to fail fails before the first build.

    Raises:
        UsageError: a target or product that cannot be used here.
        ReleaseError: an ONNX file is missing or changed.
        EngineError: a build would fail or did; engines built before stay as they were.
    """
    release.require_writable()
    wanted = config.targets or ((NATIVE,) if config.product == TENSORRT else DEFAULT_TARGETS)
    product = load_product(config.product, wanted)
    targets = capabilities(wanted)
    profiles = release_profiles(release.spec, config.opt_batches, config.max_batch)
    options = with_timings(config.options, config.timing_cache, product)
    models = [(model, release.read(model)) for model in model_files(release, config.precisions)]
    for model, data in models:
        require_buildable(release, model, data, wanted, product, profiles)
    groups = [targets] if config.together else [(target,) for target in targets]
    builds = [(model, data, group) for model, data in models for group in groups]
    built: list[tuple[dict[str, Any], Plan, ManifestFile]] = []
    for i, (model, data, group) in enumerate(builds):
        say(f"building {model.path} for {', '.join(group)} with {product.name} {product.version}")
        whole = part_of(progress, i, len(builds), f"{model.precision} {', '.join(group)}")
        plan = engine_from_onnx(data, product, group, model.sha256, profiles, options, whole)
        if options.timing_cache is not None:
            options = replace(options, timing_cache=plan.timing_cache)
        sidecar = sidecar_of(model, group, product, plan, options)
        if product.name == RTX:
            check_rtx_plan(plan.data, model.sha256)
        sidecar["layers"] = layers_of(data, plan, product)
        warn_of_float(sidecar, say)
        built.append((sidecar, plan, model))
    if config.timing_cache is not None and options.timing_cache is not None:
        write_atomic(config.timing_cache, options.timing_cache)
    with release.change() as change:
        for sidecar, plan, model in built:
            path = sidecar["path"]
            engine = change.write(path, plan.data, "engine", [model.sha256], precision=model.precision)
            change.write(f"{path}.json", json_bytes(sidecar), "sidecar", [engine.sha256], precision=model.precision)
        write_recipe(change, BuildRecipe.of(config.opt_batches, config.max_batch, config.options))
        write_card(change)
    return {"schema": 1, "engines": [sidecar for sidecar, _, _ in built]}


def model_files(release: Release, precisions: Sequence[str]) -> list[ManifestFile]:
    """Return the ONNX files of these precisions, or all that are for TensorRT.

    Raises:
        UsageError: a precision that is not for TensorRT.
        ReleaseError: the release has no such file.
    """
    for precision in precisions:
        if not is_for(precision, TENSORRT):
            raise UsageError(f"--precision {precision}: that file is for ONNX Runtime on a CPU; give TensorRT int8")
    if precisions:
        return [release.onnx(precision) for precision in dict.fromkeys(precisions)]
    return [model for model in release.by_role("onnx") if is_for(model.precision, TENSORRT)]


def require_buildable(
    release: Release,
    model: ManifestFile,
    data: bytes,
    targets: Sequence[str],
    product: Product,
    profiles: Sequence[Profile],
) -> None:
    """Refuse what is known to fail, before the build.

    Raises:
        UsageError: the package that looks into the file is not installed.
        EngineError: the build would fail; the message says at which node and what to do.
    """
    with with_onnx(product):
        from hwr_export.engine.preflight import preflight, require
    shapes = [shape for profile in profiles for shape in profile[INPUT]]
    batches = (shapes[0][0], shapes[1][0], shapes[-1][0])
    findings = preflight(data, release.spec, find_targets(targets), product.name, product.version, batches)
    require(findings, model.path, ", ".join(targets))


@contextmanager
def with_onnx(product: Product) -> Iterator[None]:
    """Say what is missing where what looks into the ONNX file is imported."""
    try:
        yield
    except ModuleNotFoundError as err:
        raise UsageError(
            f"the ONNX file is looked into before it is built, which needs {err.name}: "
            f"pip install 'hwr-export[{PRODUCTS[product.name]}]'"
        ) from err


def part_of(progress: Progress, index: int, builds: int, name: str) -> Progress:
    """Return the progress of one build as part of that of all."""
    return lambda phase, done, steps: progress(f"{name}: {phase}", index * steps + done, builds * steps)


def with_timings(options: BuildOptions, timing_cache: Path | None, product: Product) -> BuildOptions:
    """Return the options with what the file of timings holds.

    Raises:
        UsageError: the product cannot serve an option, or the file cannot be used.
    """
    if timing_cache is not None:
        options = replace(options, timing_cache=read_timing_cache(timing_cache))
    require_options(options, product.name)
    return options


def read_timing_cache(path: Path) -> bytes:
    """Return a timing cache, empty where the file is not there yet; that it cannot be kept is said before the build."""
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"--timing-cache {path} cannot be kept: {path.parent} is no directory that can be written to")
    try:
        return path.read_bytes() if path.exists() else b""
    except OSError as err:
        raise UsageError(f"--timing-cache {path} cannot be read: {err.strerror}") from err


def layers_of(model: bytes, plan: Plan, product: Product) -> dict[str, Any] | None:
    """Return the types that the plan's layers compute in, and how they were found; None where they cannot be read."""
    from hwr_export.engine.preflight import layers_in_float

    rtx = product.name == RTX
    computed = read_rtx_layers(plan.data) if rtx else input_types(inspect_layers(product, plan.data))
    if computed is None:
        return None
    return {
        "read_by": READ_BY if rtx else INSPECTOR,
        "input_types": computed,
        "in_float": layers_in_float(model, computed),
    }


def warn_of_float(sidecar: dict[str, Any], say: Callable[[str], None]) -> None:
    """Say which layers the file quantises and the plan computes in float."""
    if sidecar["layers"] and sidecar["layers"]["in_float"]:
        names = ", ".join(sidecar["layers"]["in_float"])
        say(f"warning: {sidecar['path']} computes in float what the file quantises: {names}")


def capabilities(names: Sequence[str]) -> tuple[str, ...]:
    """Return what plans are built for and named after: two names of one capability share a plan."""
    return tuple(dict.fromkeys(target.capability for target in find_targets(names)))


def sidecar_of(
    model: ManifestFile, targets: Sequence[str], product: Product, plan: Plan, options: BuildOptions
) -> dict[str, Any]:
    """Return what a plan's sidecar tells, of one that was not executed."""
    path = f"{ENGINES}/model.{model.precision}.{'-'.join(targets)}.engine"
    return describe(path, model.precision, model.sha256, targets, product, plan, options)


def describe(
    path: str,
    precision: str | None,
    source_sha256: str,
    targets: Sequence[str],
    product: Product,
    plan: Plan,
    options: BuildOptions,
) -> dict[str, Any]:
    """Return a plan's sidecar; `precision` is None where no release says it."""
    return {
        "path": path,
        "product": product.name,
        "product_version": product.version,
        "targets": list(targets),
        "precision": precision,
        "size_bytes": len(plan.data),
        "sha256": sha256_bytes(plan.data),
        "build_s": round(plan.build_s, 3),
        "profiles": [
            {name: dict(zip(("min", "opt", "max"), shapes, strict=True)) for name, shapes in profile.items()}
            for profile in plan.profiles
        ],
        "options": options.document(),
        "source_onnx_sha256": source_sha256,
        "status": NOT_EXECUTED,
    }
