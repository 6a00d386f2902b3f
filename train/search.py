"""SPACE.yaml -> a study in a directory that several processes share, and its winning trial as a recipe.

The objective is the lowest validation loss over a trial's epochs, at the temperature that the checkpoint would carry:
label smoothing and weight decay are then judged by what is deployed. The test split is never read. A running trial
holds a lock that ends with its process; the next process that looks marks a trial without one as failed.
"""

import fcntl
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from rich.console import Console

from hwr_export.console import stderr_console
from hwr_export.errors import HwrError, UsageError
from hwr_export.files import write_atomic
from train.data import Split, split_training_data
from train.fit import OnEpoch, fit_split
from train.search_report import DIVERGED, TRIALS, counts, short, trial_name, write_picture, write_results
from train.space import Space, load_space, try_ends

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"
LOCK = "study.lock"
SPACE = "space.yaml"
OBJECTIVE = "validation_loss_calibrated"
STOPPED = 130


def search(
    path: Path,
    out: Path,
    data_root: Path | None,
    console: Console,
    *,
    trials: int | None = None,
    timeout_minutes: float | None = None,
    jobs: int = 1,
) -> dict[str, Any]:
    """Run, continue or join the study in `out` until it has enough trials, and return what it found.

    Args:
        trials: how many the study shall have in all; None takes the number in the space.
        timeout_minutes: no trial starts later than this after now.
        jobs: processes to work in on this machine.

    Raises:
        UsageError: the space cannot be used, or `out` holds something else or a study of another space.
        DataError: the data is missing or broken.
        HwrError: no trial was completed, or a process died before there were enough.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("a search is not run under torchrun; give it processes with --jobs, or start it several times")
    deadline = math.inf if timeout_minutes is None else time.monotonic() + 60 * timeout_minutes
    space = load_space(path)
    trials = space.trials if trials is None else trials
    split = split_training_data(space.base.data, data_root)
    try_ends(space, split)
    work = open_study(space, split, out, data_root, console)
    lost = _side_by_side(space, out, data_root, trials, deadline, jobs) if jobs > 1 else work.run(trials, deadline)
    with _locked(out / LOCK):
        work.fail_the_dead()
        found = write_results(work.study, space, out)
        write_picture(work.study, space, out)
        done = sum(counts(trial) for trial in work.study.get_trials(deepcopy=False))
    if lost and done < trials:
        raise HwrError(
            f"{len(lost)} of {jobs} processes ended early (exit codes {', '.join(map(str, lost))}) after {done} of "
            f"{trials} trials; what they had finished is kept: run the same command again to go on"
        )
    if found["best"] is None and not found["n"]["running"]:
        reasons = [t["reason"] for t in found["trials"] if t["reason"]]
        raise HwrError(
            f"none of {done} trials was completed ({reasons[-1] if reasons else 'none was started in time'}); "
            "change the space and choose another -o"
        )
    return found


def open_study(space: Space, split: Split, out: Path, data_root: Path | None, console: Console) -> "Work":
    """Create the study in `out`, or open the one that is there.

    Raises:
        UsageError: `out` is something else, or holds a study of another space or other data.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as err:
        raise UsageError(f"{out} is a file; choose another -o") from err
    names = {path.name for path in out.iterdir()}
    if names and LOCK not in names:
        raise UsageError(f"{out} exists and holds no study; choose another -o")
    with _locked(out / LOCK):
        if (out / SPACE).is_file() and (out / SPACE).read_bytes() != space.document():
            raise UsageError(
                f"{out} holds a study of another space (kept in {out / SPACE}) and a space must not change while it is "
                "searched; restore it and its base recipe, or choose another -o"
            )
        write_atomic(out / SPACE, space.document())
        (out / TRIALS).mkdir(exist_ok=True)
        storage = JournalStorage(JournalFileBackend(str(out / JOURNAL), JournalLock(out / JOURNAL)))
        named = {"study_name": space.name, "storage": storage, "pruner": _pruner(space)}
        known = [study.study_name for study in storage.get_all_studies()]
        study = optuna.load_study(**named) if known else optuna.create_study(**named, direction="minimize")
        data = study.user_attrs.get("data")
        if data is None:
            study.set_user_attr("space_sha256", space.sha256)
            study.set_user_attr("data", split.description)
        elif data != split.description:
            raise UsageError(
                f"{out} holds a study on other images of {data['name']} than the data root has now; restore them, or "
                "choose another -o"
            )
    return Work(space, split, out, data_root, study, console)


@dataclass(frozen=True)
class Work:
    """One process's part in a study."""

    space: Space
    split: Split
    out: Path
    data_root: Path | None
    study: "optuna.Study"
    console: Console

    def run(self, trials: int, deadline: float = math.inf) -> list[int]:
        """Work on trials until the study has `trials`; none starts after the deadline (monotonic seconds)."""
        while time.monotonic() < deadline:
            with _locked(self.out / LOCK):
                trial = self._next(trials)
                if trial is None:
                    break
                lock = _try_lock(self._lock_of(trial.number))
            try:
                self._train(trial)
            finally:
                with _locked(self.out / LOCK):
                    self._lock_of(trial.number).unlink(missing_ok=True)
                    os.close(lock)
                    write_results(self.study, self.space, self.out)
        return []

    def fail_the_dead(self) -> None:
        """Mark trials as failed whose process is gone."""
        from optuna.trial import TrialState

        for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            lock = _try_lock(self._lock_of(trial.number))
            if lock is not None:
                self.study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
                self._lock_of(trial.number).unlink()
                os.close(lock)
                self.console.print(
                    f"trial {trial.number}: its process is gone; marked as failed, another takes its place"
                )

    def _next(self, trials: int) -> "optuna.Trial | None":
        """Draw the next trial, or return None where the study has enough."""
        from optuna.samplers import TPESampler

        self.fail_the_dead()
        so_far = self.study.get_trials(deepcopy=False)
        if sum(counts(trial) for trial in so_far) >= trials:
            return None
        base = self.space.stored_base()
        if not so_far and base is not None:
            self.study.enqueue_trial(base)  # what there is now comes first: the winner is never worse
        # One seed a trial: what is drawn depends on the trials before it, not on the process that draws.
        self.study.sampler = TPESampler(seed=(self.space.seed * 1_000_003 + len(so_far)) % 2**32)
        return self.study.ask(_distributions(self.space))

    def _train(self, trial: "optuna.Trial") -> None:
        """Train one trial and tell the study how it ended."""
        from optuna import TrialPruned
        from optuna.trial import TrialState

        values = self.space.values(trial.params)
        self.console.print(f"trial {trial.number}: {', '.join(f'{k} {short(v)}' for k, v in values.items())}")
        losses: list[float] = []
        try:
            recipe = self.space.recipe(values)
            run = self.out / TRIALS / trial_name(trial.number)
            on_epoch = _watch(trial, recipe.epochs, losses)
            fit_split(recipe, self.split, run, self.data_root, False, Console(quiet=True), on_epoch=on_epoch)
        except TrialPruned:
            self.study.tell(trial, state=TrialState.PRUNED)
            self.console.print(f"trial {trial.number}: pruned after epoch {len(losses)} at loss {losses[-1]:.5f}")
        except (HwrError, torch.OutOfMemoryError) as err:
            trial.set_user_attr(DIVERGED, str(err))
            self.study.tell(trial, state=TrialState.FAIL)
            self.console.print(f"trial {trial.number}: failed: {err}")
        except BaseException:  # Ctrl-C, a full disk, a bug: the study goes on another time
            self.study.tell(trial, state=TrialState.FAIL, skip_if_finished=True)
            self.console.print(f"trial {trial.number}: stopped; marked as failed, another takes its place")
            raise
        else:
            self.study.tell(trial, min(losses))
            best = self.study.best_trial
            self.console.print(
                f"trial {trial.number}: loss {min(losses):.5f} after {len(losses)} epochs; the best {best.value:.5f}, "
                f"trial {best.number}"
            )

    def _lock_of(self, number: int) -> Path:
        return self.out / TRIALS / f"{trial_name(number)}.lock"


def _watch(trial: "optuna.Trial", epochs: int, losses: list[float]) -> OnEpoch:
    """Return what reports each epoch's loss to the study, and ends a trial that lags behind or was left alone."""
    from optuna import TrialPruned

    def on_epoch(record: dict[str, Any]) -> None:
        losses.append(record[OBJECTIVE])
        trial.report(record[OBJECTIVE], record["epoch"])
        if record["epoch"] < epochs and trial.should_prune():
            raise TrialPruned
        parent = multiprocessing.parent_process()
        if parent is not None and not parent.is_alive():
            raise KeyboardInterrupt

    return on_epoch


class JournalLock:
    """What Optuna locks its journal with: it ends with its process, and cuts off a line that a kill left half-written.

    Optuna's own lock is a file that outlives a kill, and its journal cannot be read past half a line.
    """

    def __init__(self, journal: Path) -> None:
        self._journal = journal
        self._fd = -1

    def acquire(self) -> bool:
        self._fd = os.open(self._journal, os.O_RDWR)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        size = os.fstat(self._fd).st_size
        if size and os.pread(self._fd, 1, size - 1) != b"\n":
            os.ftruncate(self._fd, self._journal.read_bytes().rfind(b"\n") + 1)
        return True

    def release(self) -> None:
        os.close(self._fd)


def _side_by_side(
    space: Space, out: Path, data_root: Path | None, trials: int, deadline: float, jobs: int
) -> list[int]:
    """Work in processes that share the threads and GPUs of this machine; return the exit codes that are not 0."""
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // jobs)
    processes = [
        context.Process(target=_worker, args=(space, out, data_root, trials, deadline, threads, i)) for i in range(jobs)
    ]
    try:
        for process in processes:
            process.start()
        for process in processes:
            process.join()
    except BaseException:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join()
        raise
    return [process.exitcode for process in processes if process.exitcode]


def _worker(
    space: Space, out: Path, data_root: Path | None, trials: int, deadline: float, threads: int, index: int
) -> None:
    """Be one of several processes; Ctrl-C reaches the first, which then ends the others."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, _stop)
    torch.set_num_threads(threads)
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(index % torch.cuda.device_count())
    console = stderr_console()
    try:
        split = split_training_data(space.base.data, data_root)
        open_study(space, split, out, data_root, console).run(trials, deadline)
    except KeyboardInterrupt:
        sys.exit(STOPPED)
    except HwrError as err:
        console.print(f"Error: {err}")
        sys.exit(err.exit_code)


def _stop(*_: object) -> None:
    raise KeyboardInterrupt


def _distributions(space: Space) -> dict[str, Any]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, Any] = {}
    for key, p in space.parameters.items():
        if p.choices is not None:
            found[key] = CategoricalDistribution(p.tokens)
        elif space.is_integer(key):
            found[key] = IntDistribution(int(p.low), int(p.high), log=p.log, step=int(p.step or 1))
        else:
            found[key] = FloatDistribution(p.low, p.high, log=p.log, step=p.step)
    return found


def _pruner(space: Space) -> "optuna.pruners.BasePruner":
    from optuna.pruners import HyperbandPruner, MedianPruner, NopPruner

    settings, epochs = space.pruner, space.base.epochs
    match settings.kind:
        case "median":
            return MedianPruner(settings.startup_trials, n_warmup_steps=settings.warmup_epochs + 1)
        case "hyperband":
            least = min(settings.warmup_epochs + 1, epochs)
            return HyperbandPruner(least, epochs, settings.reduction_factor)
        case "none":
            return NopPruner()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _try_lock(path: Path) -> int | None:
    """Return a descriptor that holds the lock, or None where another process does."""
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    return fd
