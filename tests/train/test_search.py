"""A few tiny trials on real digits: they find a recipe, share a study, and survive what ends a process."""

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch
import yaml
from click.testing import CliRunner
from optuna.distributions import CategoricalDistribution
from PIL import Image

from hwr_export.checkpoint import load_checkpoint
from hwr_export.errors import HwrError, UsageError
from tests.conftest import ROOT, TINY, one_json, silent
from tests.train.test_space import RATE, write_space
from train import search as module
from train.__main__ import main
from train.data import split_training_data
from train.fit import fit
from train.garbage import other_characters
from train.recipe import load_recipe
from train.run_directory import LAST, METRICS, RECIPE
from train.search import JOURNAL, LOCK, SPACE, JournalLock, open_study, search
from train.search_report import print_results
from train.space import load_space

BASE = TINY | {"epochs": 2, "data": {"limit": 400, "validation_fraction": 0.3}}
GOOD_OR_BAD = {"learning_rate": {"choices": [0.01, 1e-7]}}


def small_space(folder: Path, base: dict | None = None, **changes: object) -> Path:
    return write_space(folder, **{"base": BASE | (base or {})} | changes)


def run(path: Path, out: Path, **options: object) -> dict:
    return search(path, out, None, silent(), **options)


def start(path: Path, out: Path, *options: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "train", "search", path, "-o", out, *map(str, options)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True, env=dict(os.environ))


def wait_for(path: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 90
    while not (path.is_file() and path.stat().st_size) and time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)


def losses(run: Path) -> list[float]:
    return [json.loads(line)["validation_loss_calibrated"] for line in (run / METRICS).read_text().splitlines()]


def parameters(found: dict) -> list[dict]:
    return [t["parameters"] for t in found["trials"]]


def test_a_study_writes_the_winner_as_a_recipe_that_trains(tmp_path: Path) -> None:
    channels = {"model.config.channels": {"choices": [[8, 8, 12, 16], [8, 12, 16, 16]]}}
    batch = {"batch_size": {"low": 16, "high": 48, "step": 16}}
    path = small_space(tmp_path, parameters=RATE | channels | batch, pruner={"kind": "none"})
    out = tmp_path / "study"
    result = CliRunner().invoke(main, ["search", str(path), "-o", str(out), "--json"])
    assert result.exit_code == 0, result.output
    found = one_json(result.stdout)
    assert found == json.loads((out / "search.json").read_text())
    assert found["n"] == {"complete": 4, "pruned": 0, "failed": 0, "interrupted": 0, "running": 0}
    first, *others = parameters(found)
    assert first == {"learning_rate": 0.01, "model.config.channels": [8, 8, 12, 16], "batch_size": 32}
    assert all(p["batch_size"] in (16, 32, 48) and 0.001 <= p["learning_rate"] <= 0.03 for p in others)
    for trial in found["trials"]:
        where = out / "trials" / f"{trial['number']:04d}"
        assert trial["value"] == trial["loss"] == min(losses(where))
        kept = load_recipe(where / RECIPE)
        assert kept.learning_rate == trial["parameters"]["learning_rate"]
        assert kept.model.config["channels"] == trial["parameters"]["model.config.channels"]
        won = trial["number"] == found["best"]["trial"]
        assert (where / LAST).exists() is won
        assert bool(list(where.glob("weights-*"))) is won
    best = found["best"]
    assert best["value"] == min(t["value"] for t in found["trials"])
    assert found["importances"] is None
    text = (out / "best.yaml").read_text()
    assert text.startswith(
        f"# Trial {best['trial']} of 4 of the study tiny-search (space sha256 {found['space_sha256']})"
    )
    assert f"loss {best['value']:.6f}" in text.splitlines()[0]
    with Image.open(out / "search.png") as picture:
        assert picture.width > 800
    fit(load_recipe(out / "best.yaml"), tmp_path / "again", None, resume=False, console=silent())
    assert min(losses(tmp_path / "again")) == best["value"]
    assert load_checkpoint(tmp_path / "again").info.weights == load_checkpoint(Path(best["run"])).info.weights


def test_continuing_draws_what_one_go_would_have_drawn(tmp_path: Path) -> None:
    path = small_space(tmp_path, parameters=RATE)
    whole = run(path, tmp_path / "whole")
    run(path, tmp_path / "parts", trials=1)
    run(path, tmp_path / "parts", trials=2)
    small_space(tmp_path, parameters=RATE, trials=9)
    parts = run(path, tmp_path / "parts", trials=4)
    assert parameters(whole) == parameters(parts)
    assert [t["value"] for t in whole["trials"]] == [t["value"] for t in parts["trials"]]
    assert len({p["learning_rate"] for p in parameters(whole)}) == 4
    before = (tmp_path / "parts" / JOURNAL).read_bytes()
    assert run(path, tmp_path / "parts", trials=4) == parts
    assert (tmp_path / "parts" / JOURNAL).read_bytes() == before
    assert parameters(run(small_space(tmp_path, parameters=RATE, seed=1), tmp_path / "other", trials=2)) != parameters(
        whole
    )


@pytest.mark.parametrize(
    "pruner",
    [{"startup_trials": 1}, {"kind": "hyperband", "warmup_epochs": 0, "reduction_factor": 2}],
    ids=["median", "hyperband"],
)
def test_a_hopeless_learning_rate_is_given_up(tmp_path: Path, pruner: dict) -> None:
    path = small_space(tmp_path, {"epochs": 5}, parameters=GOOD_OR_BAD, pruner=pruner)
    found = run(path, tmp_path / "study", trials=7)
    pruned = [t for t in found["trials"] if t["state"] == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial["value"] is None
        assert trial["loss"] == losses(tmp_path / "study" / "trials" / f"{trial['number']:04d}")[-1]
        assert trial["epochs"] < 5
        if pruner.get("kind") != "hyperband":
            assert trial["epochs"] == 2
    assert {t["parameters"]["learning_rate"] for t in pruned} == {1e-7}
    assert found["best"]["parameters"] == {"learning_rate": 0.01}


def test_two_processes_share_a_study(tmp_path: Path) -> None:
    path, out = small_space(tmp_path, {"epochs": 6}, parameters=RATE), tmp_path / "study"
    processes = [start(path, out, "--trials", 6, "--json") for _ in range(2)]
    reads = 0
    while any(process.poll() is None for process in processes):
        if (out / "best.yaml").exists():
            load_recipe(out / "best.yaml")
            reads += 1
        time.sleep(0.02)
    ends = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], ends
    mine = [set(re.findall(r"^trial (\d+): learning_rate", stderr, re.MULTILINE)) for _, stderr in ends]
    assert all(mine), ends
    assert not mine[0] & mine[1]
    assert mine[0] | mine[1] == {"0", "1", "2", "3", "4", "5"}
    found = json.loads((out / "search.json").read_text())
    assert found["n"]["complete"] + found["n"]["pruned"] == 6
    assert len({p["learning_rate"] for p in parameters(found)}) == 6
    assert reads > 10
    assert {one_json(stdout)["space_sha256"] for stdout, _ in ends} == {found["space_sha256"]}


def test_jobs_are_processes(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    found = run(small_space(tmp_path, parameters=RATE), tmp_path / "study", trials=3, jobs=2)
    assert found["n"]["complete"] == 3
    stderr = capfd.readouterr().err
    assert [stderr.count(f"trial {n}: learning_rate") for n in range(4)] == [1, 1, 1, 0]
    assert sorted(p.name for p in (tmp_path / "study" / "trials").iterdir()) == ["0000", "0001", "0002"]


def test_kill_minus_nine_costs_the_trial_in_hand(tmp_path: Path) -> None:
    path, out = small_space(tmp_path, {"epochs": 20}, parameters=RATE), tmp_path / "study"
    process = start(path, out, "--trials", 1)
    wait_for(out / "trials" / "0000" / METRICS, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    with (out / JOURNAL).open("ab") as journal:
        journal.write(b'{"op_code":7,"worker')  # what a kill in the middle of a write leaves
    found = run(path, out, trials=1)
    assert [t["state"] for t in found["trials"]] == ["interrupted", "complete"]
    assert found["n"]["complete"] == found["n"]["interrupted"] == 1
    assert not (out / "trials" / "0000" / LAST).exists()
    assert sorted(p.name for p in (out / "trials").iterdir()) == ["0000", "0001"]
    assert load_recipe(out / "best.yaml").epochs == 20


def test_a_trial_that_was_killed_while_it_was_drawn_is_replaced(tmp_path: Path) -> None:
    path, out = small_space(tmp_path, parameters=RATE | {"batch_size": {"choices": [16, 32]}}), tmp_path / "study"
    space = load_space(path)
    study = open_study(space, split_training_data(space.base.data, None), out, None, silent()).study
    study.enqueue_trial(space.stored_base())
    study.ask({"batch_size": CategoricalDistribution([16, 32])})
    found = run(path, out, trials=1)
    assert [t["state"] for t in found["trials"]] == ["interrupted", "complete"]
    assert [len(p) for p in parameters(found)] == [1, 2]
    print_results(found)


def test_ctrl_c_reaches_every_process_and_the_study_goes_on(tmp_path: Path) -> None:
    path, out = small_space(tmp_path, {"epochs": 60}, parameters=RATE), tmp_path / "study"
    process = start(path, out, "--trials", 2, "--jobs", 2)
    wait_for(out / "trials" / "0001" / METRICS, process)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert stderr.count("stopped; marked as failed, another takes its place") == 2
    found = json.loads((out / "search.json").read_text())
    assert [t["state"] for t in found["trials"]] == ["interrupted", "interrupted"]
    assert not list((out / "trials").glob("*.lock"))
    assert not (out / "best.yaml").exists()


def test_workers_that_die_are_said(tmp_path: Path) -> None:
    path, out = small_space(tmp_path, {"epochs": 200}, parameters=RATE), tmp_path / "study"

    def kill_all() -> None:
        while not all((out / "trials" / name / METRICS).is_file() for name in ("0000", "0001")):
            time.sleep(0.01)
        for process in multiprocessing.active_children():
            process.kill()

    killer = threading.Thread(target=kill_all)
    killer.start()
    message = r"2 of 2 processes ended early \(exit codes -9, -9\) after 0 of 2 trials; what they had finished is kept"
    with pytest.raises(HwrError, match=message):
        run(path, out, trials=2, jobs=2)
    killer.join()
    assert json.loads((out / "search.json").read_text())["n"]["interrupted"] == 2


@pytest.mark.slow
def test_workers_do_not_outlive_the_search(tmp_path: Path) -> None:
    path, out = small_space(tmp_path, {"epochs": 200}, parameters=RATE), tmp_path / "study"
    process = start(path, out, "--trials", 2, "--jobs", 2)
    wait_for(out / "trials" / "0001" / METRICS, process)
    process.send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)  # returns once the last process that writes to the pipe is gone
    assert stderr.count("stopped; marked as failed, another takes its place") == 2
    assert not list((out / "trials").glob("*.lock"))


def test_a_trial_that_diverges_counts_as_failed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = torch.nn.functional.cross_entropy, []

    def second_trial_diverges(logits: torch.Tensor, *arguments: object, **named: object) -> torch.Tensor:
        diverge = (tmp_path / "study" / "trials" / "0001").exists()
        calls.append(diverge)
        loss = real(logits, *arguments, **named)
        return loss * float("nan") if diverge and not (tmp_path / "study" / "trials" / "0002").exists() else loss

    monkeypatch.setattr("train.fit.F.cross_entropy", second_trial_diverges)
    found = run(small_space(tmp_path, parameters=RATE), tmp_path / "study", trials=3)
    assert [t["state"] for t in found["trials"]] == ["complete", "failed", "complete"]
    assert "training loss became nan at step 1 of epoch 1" in found["trials"][1]["reason"]
    assert {p.name for p in (tmp_path / "study" / "trials" / "0001").iterdir()} == {RECIPE, METRICS, "augmented.png"}


@pytest.mark.parametrize("kind", [HwrError, torch.OutOfMemoryError])
def test_a_search_in_which_nothing_is_completed_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def fails(*arguments: object, **named: object) -> None:
        raise kind("the training loss became nan")

    monkeypatch.setattr(module, "fit_split", fails)
    path = small_space(tmp_path, parameters=RATE)
    with pytest.raises(
        HwrError, match=r"none of 2 trials was completed \(the training loss became nan\); change the space"
    ):
        run(path, tmp_path / "study", trials=2)
    with pytest.raises(HwrError, match=r"none of 0 trials was completed \(none was started in time\)"):
        run(path, tmp_path / "other", trials=2, timeout_minutes=1e-9)


def test_what_is_no_failure_of_the_trial_ends_the_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = module.fit_split

    def stops(recipe: object, split: object, out: Path, *arguments: object, **named: object) -> Path:
        if out.name == "0001":
            raise OSError(28, "No space left on device")
        return real(recipe, split, out, *arguments, **named)

    monkeypatch.setattr(module, "fit_split", stops)
    path = small_space(tmp_path, parameters=RATE)
    with pytest.raises(OSError, match="No space left"):
        run(path, tmp_path / "study", trials=2)
    assert [t["state"] for t in run(path, tmp_path / "study", trials=2)["trials"]] == [
        "complete",
        "interrupted",
        "complete",
    ]


def test_a_study_is_of_one_space_and_one_set_of_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, out = small_space(tmp_path, parameters=RATE), tmp_path / "study"
    run(path, out, trials=1)
    kept = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for changes in ({"seed": 1}, {"base": {"batch_size": 64}}, {"parameters": GOOD_OR_BAD}):
        with pytest.raises(UsageError, match=rf"{out} holds a study of another space .kept in {out / SPACE}."):
            run(small_space(tmp_path, changes.pop("base", None), **{"parameters": RATE} | changes), out, trials=2)
    real = module.split_training_data

    def other_images(*arguments: object) -> object:
        split = real(*arguments)
        split.description["sha256"] = "0" * 64
        return split

    monkeypatch.setattr(module, "split_training_data", other_images)
    with pytest.raises(UsageError, match="a study on other images of mnist than the data root has now"):
        run(small_space(tmp_path, parameters=RATE), out, trials=2)
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == kept


def test_what_is_no_study_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small_space(tmp_path, parameters=RATE)
    with pytest.raises(UsageError, match="exists and holds no study"):
        run(path, tmp_path)
    with pytest.raises(UsageError, match=r"space\.yaml is a file; choose another -o"):
        run(path, path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="a search is not run under torchrun; give it processes with --jobs"):
        run(path, tmp_path / "study")
    assert [p.name for p in tmp_path.iterdir()] == ["space.yaml"]


def test_bad_words_are_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text(
        yaml.safe_dump({"schema": 1, "name": "x", "base": BASE, "parameters": {"lr": {}}})
    )
    for arguments, message in [
        (("nowhere.yaml",), "there is no space nowhere.yaml"),
        ((tmp_path / "bad.yaml",), "parameters.lr: no key that can be searched; valid:"),
        ((tmp_path / "bad.yaml", "--trials", 0), "--trials"),
        ((tmp_path / "bad.yaml", "--jobs", 0), "--jobs"),
        ((tmp_path / "bad.yaml", "--timeout", 0), "--timeout"),
    ]:
        result = CliRunner().invoke(main, ["search", *map(str, arguments), "-o", str(tmp_path / "study")])
        assert result.exit_code == 2
        assert message in result.stderr
        assert result.stdout == ""
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "study").exists()


@pytest.mark.parametrize("torn", [b"", b"{", b'{"op_code":4,"study_id":0'])
def test_the_journal_is_cut_after_its_last_whole_line(tmp_path: Path, torn: bytes) -> None:
    journal = tmp_path / JOURNAL
    for whole in (b"", b'{"a":1}\n', b'{"a":1}\n{"b":2}\n'):
        journal.write_bytes(whole + torn)
        lock = JournalLock(journal)
        assert lock.acquire()
        assert module._try_lock(journal) is None
        lock.release()
        assert journal.read_bytes() == whole
    assert not (tmp_path / LOCK).exists()


def test_enough_trials_have_importances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def quick(recipe: object, split: object, out: Path, *arguments: object, on_epoch: object) -> None:
        out.mkdir()
        (out / RECIPE).write_text("schema: 1\n")
        loss = (recipe.learning_rate - 0.01) ** 2 * 1e4 + 0.01 * recipe.weight_decay
        on_epoch({"epoch": 1, "validation_loss_calibrated": loss})

    monkeypatch.setattr(module, "fit_split", quick)
    spread = RATE | {"weight_decay": {"low": 0.0, "high": 1.0}}
    found = run(small_space(tmp_path, parameters=spread, pruner={"kind": "none"}), tmp_path / "study", trials=40)
    assert list(found["importances"]) == ["learning_rate", "weight_decay"]
    assert sum(found["importances"].values()) == pytest.approx(1, abs=1e-3)
    assert found["importances"]["learning_rate"] > 0.8
    assert found["best"]["trial"] == 0  # the base recipe is the optimum of this one, and was tried first


def test_trials_train_against_other_characters_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pools = []

    def seen(recipe, data, root):
        pools.append(len(other_characters(recipe, data, root)))
        raise KeyboardInterrupt

    monkeypatch.setattr("train.fit.other_characters", seen)
    letters = {"garbage_weight": 0.3, "garbage_data": {"name": "chars62", "classes": "AEFHK", "limit": 2000}}
    base = TINY | {"data": {"limit": 400}} | letters
    path = tmp_path / "space.yaml"
    parameters = {"learning_rate": {"low": 0.001, "high": 0.01}}
    path.write_text(yaml.safe_dump({"schema": 1, "name": "s", "base": base, "trials": 1, "parameters": parameters}))
    with pytest.raises(KeyboardInterrupt):
        search(path, tmp_path / "out", None, silent())
    assert pools == [2000]
