"""Release + data -> may the ONNX files replace the eager model? One cell a backend and precision, written as evidence.

Never skips: what cannot be loaded or run is a FAIL with its reason. Without the eager baseline (no torch) the goldens
carry the eager answers.
"""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hwr_export.answers import describe_answers
from hwr_export.baseline import Kind, make_baseline
from hwr_export.card import write_card
from hwr_export.cell import Question, judge_file, judge_plan
from hwr_export.engine.here import RunnablePlan, plans_here
from hwr_export.engine.products import PRODUCTS
from hwr_export.errors import ParityError, UsageError
from hwr_export.files import json_bytes
from hwr_export.release import PARITY, ManifestFile, Release, is_for
from hwr_export.runners import ONNX_BACKENDS, why_absent
from hwr_export.verdict import overall


@dataclass(frozen=True)
class ParityConfig:
    """`data` names a dataset whose test split is read; with the baseline `goldens` it is not read.

    `margin_pt` is the accuracy, in percentage points, that a file may lose; `corrupted` how many of the test images are
    also seen under every scanner condition; `bisect` looks for the first layer where a failing file parts.
    """

    data: str = "mnist"
    data_root: Path | None = None
    baseline: Kind = "eager"
    backends: tuple[str, ...] = ()
    margin_pt: float = 0.1
    corrupted: int = 2000
    bisect: bool = False


def parity(release: Release, config: ParityConfig, say: Callable[[str], None] = lambda _: None) -> dict[str, Any]:
    """Compare every ONNX file of a release on every installed backend, and every plan that this machine can run.

    What was found is written to `parity.json` and returned; plans that cannot run here are in it with the reason.

    Raises:
        UsageError: a backend or the baseline that was asked for is not installed, or has no plan that runs here.
        ReleaseError: the goldens are missing or changed.
        DataError: the dataset is missing.
        ParityError: the release holds nothing to compare.
    """
    release.require_writable()
    products = [b for b in config.backends if b in PRODUCTS]
    files = [b for b in config.backends if b not in PRODUCTS]
    backends = choose_backends(files) if files or not products else []
    plans, not_run = plans_here(release, products) if products or not files else ([], [])
    models = release.by_role("onnx")
    if not models:
        raise ParityError(f"{release.path} has no ONNX file to compare; run `hwr-export onnx`")
    baseline = make_baseline(release, config.baseline, config.data, config.data_root, config.corrupted, say)
    reference = baseline.reference
    question = Question(config.margin_pt / 100, config.bisect)

    def judged(model: ManifestFile, backend: str) -> dict[str, Any]:
        say(f"comparing {model.path} on {backend} with {len(reference.images):,} answers of the eager model")
        return judge_file(release, model, backend, baseline, question)

    def judged_plan(found: RunnablePlan) -> dict[str, Any]:
        say(f"comparing {found.plan.path} on {found.runner.backend} with the same answers")
        path, sha256 = found.plan.path, found.plan.sha256
        return judge_plan(found.model, path, sha256, found.runner, baseline, question, found.problem)

    # Runners have one thread each and leave Python alone while they run, so two of them use two cores.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        pairs = [(model, backend) for model in models for backend in backends if is_for(model.precision, backend)]
        cells = [*pool.map(lambda pair: judged(*pair), pairs), *map(judged_plan, plans)]
    document = {
        "schema": 1,
        "release": {"name": release.manifest.name, "manifest_sha256": release.manifest_sha256},
        "data": {"name": reference.name, "n": len(reference.images), "sha256": reference.sha256},
        "baseline": config.baseline,
        "margin_pt": config.margin_pt,
        "eager": describe_answers(reference.outputs, reference.labels, reference.writers),
        "noise": {"float64": baseline.goldens.noise_floor, **baseline.noise},
        "verdict": overall([cell["verdict"] for cell in cells]),
        "cells": cells,
        "not_run": not_run,
    }
    made_from = [baseline.golden.sha256, *(m.sha256 for m in models), *(p.plan.sha256 for p in plans)]
    with release.change() as change:
        change.write(PARITY, json_bytes(document), "parity", made_from)
        write_card(change)
    return document


def choose_backends(wanted: Sequence[str]) -> list[str]:
    """Return the backends asked for, or all that are installed.

    Raises:
        UsageError: one is unknown or not installed, or there is none.
    """
    for backend in wanted:
        if backend not in ONNX_BACKENDS:
            raise UsageError(f"there is no backend {backend!r}; known: {', '.join(ONNX_BACKENDS)}")
        if reason := why_absent(backend):
            raise UsageError(f"the backend {backend} cannot be used: {reason}")
    chosen = list(wanted) or [b for b in ONNX_BACKENDS if not why_absent(b)]
    if not chosen:
        raise UsageError("no backend is installed to compare with: pip install 'hwr-export[cpu]'")
    return chosen
