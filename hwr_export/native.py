"""Release -> plans that this machine's GPU built, ran and proved against the goldens; only such a plan is recorded.

A plan is kept while everything it depends on is as it was. One that failed, or could not be decided, leaves the
previous plan where it is.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from hwr_export.baseline import Baseline, make_baseline
from hwr_export.card import write_card
from hwr_export.cell import Question, judge_plan
from hwr_export.engine.build import Plan, engine_from_onnx
from hwr_export.engine.callbacks import Progress
from hwr_export.engine.device import Device, find_device
from hwr_export.engine.options import LogLevel, release_profiles
from hwr_export.engine.products import Product, installed_products, load_product
from hwr_export.engine.recipe import BuildRecipe, read_recipe, write_recipe
from hwr_export.engine.stage import layers_of, model_files, read_timing_cache, require_buildable, sidecar_of
from hwr_export.engine.targets import NATIVE, RTX, TENSORRT
from hwr_export.errors import EngineError, ReleaseError, UsageError
from hwr_export.files import json_bytes, write_atomic
from hwr_export.release import ENGINES, GOLDENS, ManifestFile, Release
from hwr_export.runners.trt import TrtRunner, kernels_file
from hwr_export.verdict import overall

EXECUTED = "executed"
PROOF = (
    *("verdict", "n", "agreement", "max_abs_logit_diff", "tolerance", "accuracy", "eager_accuracy", "margin_pt"),
    *("batches", "reasons"),
)


@dataclass(frozen=True)
class NativeConfig:
    """`recipe` None is the release's own; `margin_pt` the accuracy, in percentage points, that a plan may lose."""

    product: str | None = None
    precisions: tuple[str, ...] = ()  # none: every file that TensorRT takes
    recipe: BuildRecipe | None = None
    margin_pt: float = 0.1
    timing_cache: Path | None = None  # read if it is there, and written after each build
    log_level: LogLevel | None = None


def build_native(
    release: Release,
    config: NativeConfig,
    say: Callable[[str], None] = lambda _: None,
    progress: Progress = lambda *_: None,
) -> dict[str, Any]:
    """Build a plan of each ONNX file on this machine, prove it, and record it; one that is still good is kept.

    Raises:
        UsageError: cuda-python or the product is not installed.
        ReleaseError: an ONNX file, the goldens or the recipe are missing or changed.
        EngineError: there is no GPU, or a build would fail or did; what was recorded before stays.
    """
    release.require_writable()
    device = find_device()
    product = product_here(config.product, device)
    say(f"{device.gpu} ({device.compute_capability}), driver {device.driver}, {product.name} {product.version}")
    build = _Build(release, config, config.recipe or read_recipe(release), device, product)
    build.require_runnable()
    baseline = make_baseline(release, "goldens", GOLDENS, None, 0)
    rows = [build.one(model, baseline, say, progress) for model in model_files(release, config.precisions)]
    verdict = overall([row["parity"]["verdict"] for row in rows])
    return {"schema": 1, "device": asdict(device), "verdict": verdict, "engines": rows}


def product_here(wanted: str | None, device: Device) -> Product:
    """Import the product asked for, else TensorRT where it is installed, else TensorRT-RTX.

    Raises:
        UsageError: neither is installed, or TensorRT-RTX does not build for this GPU.
    """
    only_rtx = not wanted and installed_products() == [RTX]
    if wanted == RTX or only_rtx:
        return load_product(RTX, [device.compute_capability])
    return load_product(TENSORRT, [NATIVE])


@dataclass(frozen=True)
class _Build:
    release: Release
    config: NativeConfig
    recipe: BuildRecipe
    device: Device
    product: Product

    def require_runnable(self) -> None:
        """Refuse before a build what would come of it.

        Raises:
            UsageError: the plan could not be run.
        """
        if self.recipe.options.strip_weights:
            raise UsageError("a plan without weights cannot be proved, and so not recorded; leave out --strip-weights")

    def one(
        self, model: ManifestFile, baseline: Baseline, say: Callable[[str], None], progress: Progress
    ) -> dict[str, Any]:
        """Build, prove and record the plan of one ONNX file, or keep the one that is there."""
        path = f"{ENGINES}/model.{model.precision}.{NATIVE}.engine"
        made_by = self._made_by(model, baseline)
        previous, why = self._previous(path, made_by)
        if previous is not None and not why:
            say(f"{path} is up to date")
            return previous | {"result": "up to date"}
        again = f" again: {why}" if why else ""
        say(f"building {model.path} on this GPU with {self.product.name} {self.product.version}{again}")
        plan = self._built(model, progress)
        sidecar = sidecar_of(model, (NATIVE,), self.product, plan, self.recipe.options)
        say(f"running {path} against {len(baseline.goldens)} goldens")
        runner = TrtRunner(plan.data, self.release.spec, self.product.module, kernels_file(plan.data))
        cell = judge_plan(model, path, sidecar["sha256"], runner, baseline, Question(self.config.margin_pt / 100))
        sidecar |= {"status": EXECUTED, "parity": {k: cell[k] for k in PROOF if k in cell}}
        sidecar |= {"device": asdict(self.device), "made_by": made_by}
        if cell["verdict"] != "PASS":
            kept = "the previous plan is kept" if previous is not None else "there is no plan"
            say(f"{path} is not recorded, {kept}: {cell['verdict']}: {'; '.join(cell['reasons'])}{_advice(cell)}")
            return sidecar | {"result": "not recorded"}
        sidecar["layers"] = self._layers(model, plan, path, say)
        self._record(path, plan.data, sidecar, model)
        return sidecar | {"result": "recorded"}

    def _built(self, model: ManifestFile, progress: Progress) -> Plan:
        recipe, product, cache = self.recipe, self.product, self.config.timing_cache
        data = self.release.read(model)
        targets = [NATIVE] if product.name == TENSORRT else [self.device.compute_capability]
        profiles = release_profiles(self.release.spec, recipe.opt_batches, recipe.max_batch)
        require_buildable(self.release, model, data, targets, product, profiles)
        timings = read_timing_cache(cache) if cache is not None else None
        options = replace(recipe.options, timing_cache=timings, log_level=self.config.log_level)
        plan = engine_from_onnx(data, product, targets, model.sha256, profiles, options, progress)
        if cache is not None:
            write_atomic(cache, plan.timing_cache)
        return plan

    def _layers(self, model: ManifestFile, plan: Plan, path: str, say: Callable[[str], None]) -> dict[str, Any] | None:
        """Return what the layers compute in; that it cannot be read is told and does not undo the proof."""
        try:
            layers = layers_of(self.release.read(model), plan, self.product)
        except EngineError as err:
            say(f"warning: the layers of {path} cannot be read: {err}")
            return {"problem": str(err)}
        if layers and layers["in_float"]:
            say(f"warning: {path} computes in float what the file quantises: {', '.join(layers['in_float'])}")
        return layers

    def _made_by(self, model: ManifestFile, baseline: Baseline) -> dict[str, Any]:
        """Return all that a plan and its proof depend on, by the words a change of it is told in."""
        return {
            "product": self.product.name,
            "version": self.product.version,
            "GPU": self.device.gpu,
            "compute capability": self.device.compute_capability,
            "driver": self.device.driver,
            "ONNX file": model.sha256,
            "goldens": baseline.golden.sha256,
            "margin": self.config.margin_pt,
            **{f"recipe's {name}": value for name, value in self.recipe.choices().items()},
        }

    def _previous(self, path: str, made_by: dict[str, Any]) -> tuple[dict[str, Any] | None, str]:
        """Return the sidecar of the plan that is there, None if there is none, and why it is not good any more."""
        entry, told = self.release.entry(path), self.release.entry(f"{path}.json")
        if entry is None or told is None:
            return None, ""
        try:
            sidecar: dict[str, Any] = json.loads(self.release.read(told))
            self.release.read(entry)
        except ReleaseError as err:
            return {}, str(err)
        before = sidecar.get("made_by")
        if before is None:
            return sidecar, "the plan that is there was never executed"
        changes = [f"{k} {_short(before.get(k))} -> {_short(v)}" for k, v in made_by.items() if before.get(k) != v]
        return sidecar, "; ".join(changes)

    def _record(self, path: str, plan: bytes, sidecar: dict[str, Any], model: ManifestFile) -> None:
        with self.release.change() as change:
            engine = change.write(path, plan, "engine", [model.sha256], precision=model.precision)
            made_from = [engine.sha256, sidecar["made_by"]["goldens"]]
            change.write(f"{path}.json", json_bytes(sidecar), "sidecar", made_from, precision=model.precision)
            write_recipe(change, self.recipe)
            write_card(change)


def _advice(cell: dict[str, Any]) -> str:
    """Say which margin the goldens could decide, of a verdict that they could not."""
    if cell["verdict"] != "UNDECIDED" or cell["task"] is None:
        return ""
    rates = cell["task"]["rates"].values()
    excluded = max(-rate["ci_pt"][0] * cell["margin_pt"] / rate["margin_pt"] for rate in rates)
    return f"; the goldens exclude a loss of {excluded:.2f} points, so --margin above that would decide"


def _short(value: Any) -> str:
    """Return a value as a sentence can hold it: hashes by their beginning."""
    text = str(value)
    return f"{text[:12]}…" if len(text) == 64 else text
