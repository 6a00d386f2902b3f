"""One ONNX file, anybody's, and targets -> a plan a target with a JSON sidecar beside it; no release needed.

Nothing is written before every build has succeeded; then all files take their names, each plan before its sidecar,
whose sha256 says which plan it belongs to.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hwr_export.engine.build import engine_from_onnx
from hwr_export.engine.callbacks import Progress
from hwr_export.engine.options import DEFAULT_OPTIONS, BuildOptions, Profile
from hwr_export.engine.plan import check_rtx_plan
from hwr_export.engine.products import DEFAULT_TARGETS, Product, load_product
from hwr_export.engine.shapes import read_shapes
from hwr_export.engine.stage import (
    capabilities,
    describe,
    layers_of,
    part_of,
    warn_of_float,
    with_onnx,
    with_timings,
)
from hwr_export.engine.targets import NATIVE, RTX, TENSORRT, find_targets
from hwr_export.errors import EngineError, UsageError
from hwr_export.files import json_bytes, sha256_bytes, write_together


@dataclass(frozen=True)
class FileConfig:
    """One plan for each target, beside the ONNX file; `output` names it where there is one only."""

    targets: tuple[str, ...] = ()
    product: str | None = None
    shapes: tuple[str, ...] = ()  # as `--shape` takes them
    together: bool = False  # one plan for all targets instead of one for each
    output: Path | None = None
    options: BuildOptions = DEFAULT_OPTIONS
    timing_cache: Path | None = None


def build_from_file(
    path: Path,
    config: FileConfig,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Build the plans of an ONNX file, then write them.

    Raises:
        UsageError: words that do not fit the file or the product, or a place that cannot be written.
        EngineError: a build would fail or did; plans that were there before stay as they were.
    """
    shapes = read_shapes(config.shapes)
    wanted = config.targets or ((NATIVE,) if config.product == TENSORRT else DEFAULT_TARGETS)
    product = load_product(config.product, wanted)
    targets = capabilities(wanted)
    options = with_timings(config.options, config.timing_cache, product)
    groups = [targets] if config.together else [(target,) for target in targets]
    outputs = _outputs(path, groups, config.output)
    model, sources = _read(path, product)
    _preflight(path, model, shapes, wanted, product)
    sha256 = sha256_bytes(model)
    contents: dict[Path, bytes] = {}
    sidecars = []
    for i, (output, group) in enumerate(zip(outputs, groups, strict=True)):
        say(f"building {path} for {', '.join(group)} with {product.name} {product.version}")
        whole = part_of(progress, i, len(groups), ", ".join(group))
        plan = engine_from_onnx(model, product, group, sha256, (shapes,) if shapes else (), options, whole)
        if options.timing_cache is not None:
            options = replace(options, timing_cache=plan.timing_cache)
        sidecar = describe(str(output), None, sha256, group, product, plan, options) | {"source_files": sources}
        if product.name == RTX:
            check_rtx_plan(plan.data, sha256)
        sidecar["layers"] = layers_of(model, plan, product)
        warn_of_float(sidecar, say)
        contents[output] = plan.data
        contents[output.with_name(f"{output.name}.json")] = json_bytes(sidecar | {"path": output.name})
        sidecars.append(sidecar)
    if config.timing_cache is not None and options.timing_cache is not None:
        contents[config.timing_cache] = options.timing_cache
    write_together(contents)
    return {"schema": 1, "engines": sidecars}


def _outputs(path: Path, groups: Sequence[Sequence[str]], output: Path | None) -> list[Path]:
    """Return where each group's plan goes, a place that can be written."""
    if output is not None and len(groups) > 1:
        names = ", ".join("-".join(group) for group in groups)
        raise UsageError(
            f"-o names one file and there would be {len(groups)} plans ({names}); add --together or omit -o"
        )
    outputs = [output] if output else [path.with_name(f"{path.stem}.{'-'.join(group)}.engine") for group in groups]
    for file in outputs:
        if file.suffix == ".onnx" or file.is_dir():
            raise UsageError(
                f"-o {file} is {'a directory' if file.is_dir() else 'an ONNX file'}; name a plan: X.engine"
            )
        if not os.access(file.parent, os.W_OK):
            what = "is not writable" if file.parent.is_dir() else "is no directory"
            raise UsageError(f"{file.parent} {what}, and the plan would go there; name another place with -o")
    return outputs


def _read(path: Path, product: Product) -> tuple[bytes, dict[str, str]]:
    """Return the model with all its weights inside, and the sha256 of each file that it was read from."""
    with with_onnx(product):
        import onnx
    try:
        data = path.read_bytes()
    except OSError as err:
        raise UsageError(f"{path} cannot be read: {err.strerror}; give an ONNX file or a release") from err
    sources = {path.name: sha256_bytes(data)}
    try:
        model = onnx.load_model_from_string(data)
    except Exception:  # protobuf has several implementations with classes of their own; the preflight says it
        return data, sources
    places = {e.value for t in model.graph.initializer for e in t.external_data if e.key == "location"}
    if not places:
        return data, sources
    try:
        onnx.load_external_data_for_model(model, str(path.parent))
        sources |= {place: sha256_bytes((path.parent / place).read_bytes()) for place in sorted(places)}
        return model.SerializeToString(), sources
    except Exception as err:  # onnx: a place outside the folder or none; protobuf: more than 2 GB
        raise EngineError(
            f"{path} keeps weights in {', '.join(sorted(places))}, which cannot be read with it ({err}); copy that "
            "beside it, or save the model as one file. Nothing was built"
        ) from err


def _preflight(path: Path, model: bytes, shapes: Profile, targets: Sequence[str], product: Product) -> None:
    from hwr_export.engine.preflight import preflight_file, require

    findings = preflight_file(model, shapes, find_targets(targets), product.name, product.version)
    require(findings, str(path), ", ".join(targets))
