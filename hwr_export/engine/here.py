"""A release's plans -> those that this machine can run, each with its runner, and why it cannot run the others."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hwr_export.engine.device import Device, find_device
from hwr_export.engine.products import load_product
from hwr_export.engine.targets import NATIVE, RTX
from hwr_export.errors import EngineError, ReleaseError, UsageError
from hwr_export.files import sha256_bytes
from hwr_export.release import ManifestFile, Release
from hwr_export.runners.trt import TrtRunner, kernels_file


@dataclass(frozen=True)
class RunnablePlan:
    """A plan, the ONNX file that it was built from, and what runs it; `problem` where it is not to be loaded."""

    plan: ManifestFile
    model: ManifestFile
    runner: TrtRunner
    problem: str


def plans_here(release: Release, products: Sequence[str] = ()) -> tuple[list[RunnablePlan], list[dict[str, str]]]:
    """Find the plans that run here.

    Args:
        products: those asked for; none stands for all, and then it is no error that nothing runs here.

    Returns:
        The plans, and {path, backend, reason} of each that cannot run.

    Raises:
        UsageError: a plan was asked for by its product and none of it can run here; the message says why.
    """
    runnable, others = [], []
    for plan in release.by_role("engine"):
        product = ""
        try:
            sidecar = _sidecar(release, plan)
            product = str(sidecar["product"])
            if not products or product in products:
                runnable.append(_runnable(release, plan, sidecar, find_device()))
        except (UsageError, EngineError, ReleaseError) as err:
            others.append({"path": plan.path, "backend": product, "reason": str(err)})
    for product in products:
        if all(found.runner.backend != product for found in runnable):
            reasons = "; ".join(f"{o['path']}: {o['reason']}" for o in others if o["backend"] in ("", product))
            raise UsageError(f"no plan of {product} runs here: {reasons or 'the release has none'}")
    return runnable, others


def _sidecar(release: Release, plan: ManifestFile) -> dict[str, Any]:
    entry = release.entry(f"{plan.path}.json")
    if entry is None:
        raise ReleaseError("it has no sidecar; build it again")
    found: dict[str, Any] = json.loads(release.read(entry))
    return found


def _runnable(release: Release, plan: ManifestFile, sidecar: dict[str, Any], device: Device) -> RunnablePlan:
    targets, here = sidecar["targets"], device.compute_capability
    made_for = [sidecar.get("device", {}).get("compute_capability", "another GPU")] if NATIVE in targets else targets
    if here not in made_for:
        raise EngineError(f"it is for {', '.join(made_for)} and this GPU is {here}")
    name = sidecar["product"]
    product = load_product(name, [here if name == RTX else NATIVE])
    if product.version != sidecar["product_version"]:
        raise EngineError(
            f"it is of {name} {sidecar['product_version']} and {product.version} is installed; build it again"
        )
    model = next((f for f in release.by_role("onnx") if f.sha256 in plan.made_from), None)
    if model is None:
        raise EngineError("the ONNX file that it was built from is not in the release any more; build it again")
    data = release.read_unverified(plan)
    changed = f"{plan.path} is not the file the manifest vouches for (sha256 {sha256_bytes(data)[:12]}…)"
    problem = "" if sha256_bytes(data) == plan.sha256 else changed
    runner = TrtRunner(data, release.spec, product.module, kernels_file(data))
    return RunnablePlan(plan, model, runner, problem)
