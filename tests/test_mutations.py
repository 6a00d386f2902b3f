"""The verdict itself on trial: every fault is caught and blamed on the right stage, what is unchanged is never refused.

On the reference release, so that decisions mean something.
"""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from hwr_export.baseline import Baseline, make_baseline
from hwr_export.cell import Question, judge_file
from hwr_export.errors import RunnerError
from hwr_export.goldens import Goldens
from hwr_export.release import GOLDENS, Release, onnx_path
from hwr_export.runners.onnxruntime import OnnxRuntimeRunner
from hwr_export.runners.openvino import OpenVinoRunner
from hwr_export.spec import INPUT, LOGITS
from tests.conftest import ROOT
from tests.faults import FAULTS, Fault, rounded_to_halves, with_integers
from tests.test_parity import bless

QUESTION = Question(margin=0.001)
PRECISIONS = ("fp32", "fp16", "int8-cpu")


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The reference release with two more files, each made in the simplest way there is."""
    folder = tmp_path_factory.mktemp("mutations")
    path = folder / "digits"
    shutil.copytree(ROOT / "exported" / "digits", path, ignore=shutil.ignore_patterns("engines"))
    release = Release.open(path)
    source = release.onnx("fp32")
    model = release.read(source)
    goldens = Goldens.from_bytes(release.read(release.entry(GOLDENS)), GOLDENS)
    made = {"fp16": rounded_to_halves(model), "int8-cpu": with_integers(model, goldens.images[:250], folder)}
    with release.change() as change:
        for precision, data in made.items():
            change.write(onnx_path(precision), data, "onnx", [source.sha256], precision)
    return path


@pytest.fixture(scope="module")
def whole(digits: Path) -> Baseline:
    """All test images, five hundred of them under scanner conditions."""
    return make_baseline(Release.open(digits), "eager", "mnist", None, corrupted=500)


@pytest.fixture(scope="module")
def baseline(whole: Baseline) -> Baseline:
    return some_of(whole, np.arange(4000))


def some_of(whole: Baseline, chosen: np.ndarray) -> Baseline:
    """The same baseline on some of its test images, ascending; those among them that were corrupted stay corrupted."""
    r, kept = whole.reference, np.isin(whole.chosen, chosen)
    reference = replace(
        r,
        images=r.images[chosen],
        labels=r.labels[chosen],
        outputs={name: values[chosen] for name, values in r.outputs.items()},
        writers=None if r.writers is None else r.writers[chosen],
    )
    corrupted = tuple(replace(c, images=c.images[kept], answers=c.answers[kept]) for c in whole.corrupted)
    positions = np.searchsorted(chosen, whole.chosen[kept])
    return replace(whole, reference=reference, chosen=positions, corrupted=corrupted)


@pytest.fixture
def copy(digits: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(digits, tmp_path / "digits"))


def judged(path: Path, precision: str, baseline: Baseline, backend: str = "onnxruntime", bisect: bool = False) -> dict:
    release = Release.open(path)
    return judge_file(release, release.onnx(precision), backend, baseline, replace(QUESTION, bisect=bisect))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_unchanged_files_are_not_refused(digits: Path, baseline: Baseline, precision: str) -> None:
    cell = judged(digits, precision, baseline)
    assert cell["verdict"] != "FAIL", cell["reasons"]
    assert cell["stage"] is cell["fault"] is None


def test_there_are_forty_faults_of_all_stages() -> None:
    assert len(FAULTS) >= 40
    assert len({f.name for f in FAULTS}) == len(FAULTS)
    assert {f.stage for f in FAULTS} == {"preprocessing", "export", "quantization"}  # engines are broken below


@pytest.mark.parametrize("fault", FAULTS, ids=[f.name for f in FAULTS])
def test_a_fault_is_caught_and_blamed_on_its_stage(copy: Path, baseline: Baseline, fault: Fault) -> None:
    path = copy / onnx_path(fault.precision)
    model = onnx.load(path)
    before = model.SerializeToString()
    fault.edit(model)
    assert model.SerializeToString() != before
    onnx.save(model, path)
    bless(copy)
    cell = judged(copy, fault.precision, baseline)
    assert cell["verdict"] == "FAIL"
    assert cell["stage"] == fault.stage, cell["stage_reason"]
    if fault.called:
        assert cell["fault"] == fault.called


def broken_file(copy: Path, precision: str, content: bytes) -> None:
    (copy / onnx_path(precision)).write_bytes(content)
    bless(copy)


@pytest.mark.parametrize(("precision", "stage"), [("fp32", "export"), ("fp16", "quantization")])
@pytest.mark.parametrize("cut", [0, 5000])
def test_a_cut_off_file_is_called_damaged(copy: Path, baseline: Baseline, precision: str, stage: str, cut: int) -> None:
    broken_file(copy, precision, (copy / onnx_path(precision)).read_bytes()[:cut])
    cell = judged(copy, precision, baseline)
    assert (cell["verdict"], cell["stage"], cell["fault"]) == ("FAIL", stage, "damaged file")


def test_a_changed_file_beside_an_old_manifest_is_called_changed(copy: Path, baseline: Baseline) -> None:
    path = copy / onnx_path("fp32")
    model = onnx.load(path)
    model.producer_name = "somebody else"
    onnx.save(model, path)
    cell = judged(copy, "fp32", baseline)
    assert (cell["verdict"], cell["stage"], cell["fault"]) == ("FAIL", "export", "changed file")
    assert cell["agreement"] == cell["n"]


# -- engines at fault ------------------------------------------------------------------------------------------------


def turned(infer):
    return lambda self, inputs: infer(self, {INPUT: np.ascontiguousarray(inputs[INPUT].transpose(0, 2, 1))})


def in_coarse_steps(infer):
    def coarse(self, inputs):
        found = infer(self, inputs)
        return found | {LOGITS: np.round(found[LOGITS] / 8) * np.float32(8)} if LOGITS in found else found

    return coarse


def refusing(infer):
    def refuse(self, inputs):
        raise RunnerError("out of memory")

    return refuse


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize(
    ("engine", "fault"),
    [(turned, "transposed input"), (in_coarse_steps, None), (refusing, None)],
    ids=lambda e: getattr(e, "__name__", str(e)),
)
@pytest.mark.parametrize("runner", [OnnxRuntimeRunner, OpenVinoRunner])
def test_an_engine_that_answers_otherwise_is_at_fault(
    digits: Path, baseline: Baseline, monkeypatch, precision: str, engine, fault: str | None, runner
) -> None:
    monkeypatch.setattr(runner, "_infer", engine(runner._infer))
    cell = judged(digits, precision, baseline, runner.backend)
    assert cell["verdict"] == "FAIL"
    assert cell["stage"] == "engine", cell["stage_reason"]
    if fault:
        assert cell["fault"] == fault


def test_the_standards_own_evaluator_stands_in_for_another_engine(
    digits: Path, baseline: Baseline, monkeypatch
) -> None:
    monkeypatch.setattr("hwr_export.stages.why_absent", lambda backend: "" if backend == "onnxruntime" else "absent")
    monkeypatch.setattr(OnnxRuntimeRunner, "_infer", turned(OnnxRuntimeRunner._infer))
    cell = judged(digits, "fp32", baseline)
    assert cell["stage"] == "engine"
    assert cell["stage_reason"].startswith("onnx.reference answers")


# -- no false alarm --------------------------------------------------------------------------------------------------


def unchanged_repeats(digits: Path, whole: Baseline, seeds: range) -> list[str]:
    """Judge unchanged files on images drawn anew, by either engine, in batches of any size; return what was refused."""
    release = Release.open(digits)
    refused = []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        chosen = np.sort(rng.choice(len(whole.reference.images), 1000, replace=False))
        model = release.manifest.model.model_copy(update={"max_batch": int(rng.integers(2, 257))})
        release.manifest = release.manifest.model_copy(update={"model": model})
        precision, backend = rng.choice(PRECISIONS), rng.choice(["onnxruntime", "openvino"])
        cell = judge_file(release, release.onnx(precision), str(backend), some_of(whole, chosen), QUESTION)
        if cell["verdict"] == "FAIL":
            refused.append(f"{seed} {precision} {backend}: {cell['reasons']}")
    return refused


def test_what_is_unchanged_is_not_refused(digits: Path, whole: Baseline) -> None:
    assert unchanged_repeats(digits, whole, range(12)) == []


@pytest.mark.slow
def test_what_is_unchanged_is_not_refused_in_two_hundred_repeats(digits: Path, whole: Baseline) -> None:
    assert unchanged_repeats(digits, whole, range(200)) == []
