"""Pages read through Ray come out as those read here, and an actor that dies loses none."""

import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from hwr_export.errors import RunnerError
from hwr_export.scanner.form.batch import Counts, Engine, read_pages
from hwr_export.scanner.form.journal import open_journal
from hwr_export.scanner.form.pool import local_engine
from hwr_export.scanner.form.ray_engine import Actor, ray_engine
from hwr_export.scanner.form.units import find_files, unit_of
from tests.conftest import ROOT
from tests.scanner.form import fakes
from tests.scanner.form.fakes import PLAIN, FakeOpener, fake_form, save
from tests.scanner.form.test_batch import processes_of


def actors(folder: Path) -> list[int]:
    return [p for p in processes_of(folder) if b"ray::MapWorker" in Path(f"/proc/{p}/cmdline").read_bytes()]


def units_of(*paths: Path) -> dict[str, np.ndarray]:
    """Units as Ray Data hands them over."""
    rows = [asdict(unit_of(i, path)) | {"path": os.fsencode(path)} for i, path in enumerate(paths)]
    return {name: np.array([row[name] for row in rows], dtype=object) for name in rows[0]}


def test_an_actor_reads_units_and_says_what_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster: what Ray calls."""
    strange = save(tmp_path / b"\xff.png".decode("utf-8", "surrogateescape"), PLAIN)
    units = units_of(strange, save(tmp_path / "many.tif", PLAIN + 1, fakes.REFUSED))
    monkeypatch.chdir(tmp_path)  # an actor goes where the driver is
    actor = Actor(FakeOpener(tmp_path), 30.0, None, tmp_path)
    rows = [row for columns in actor(units) for row in zip(*columns.values(), strict=True)]
    assert sorted((file, number, refused) for file, number, _, refused, *_ in rows) == [
        (0, 1, False), (1, 1, False), (1, 2, True)
    ]  # fmt: skip
    assert {row[-2:] for row in rows} == {("", "")}
    actor._pool.close()
    broken = Actor(FakeOpener(tmp_path, error="no runtime is installed"), 30.0, None, tmp_path / "not here")
    (found,) = broken(units)
    assert (found["error"], found["message"]) == (["RunnerError"], ["no runtime is installed"])
    broken._pool.close()


def read(folder: Path, out: str, engine: Engine, tell=lambda _: None) -> list[dict]:
    with open_journal(folder / out, fake_form(), ()) as journal:
        found = list(read_pages(find_files([Path("in")]), journal, engine, tell).documents())
    for page in found:
        del page["ms"]
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:::ray.*")  # of itself
def test_an_actor_is_killed_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    for n in range(24):
        save(tmp_path / "in" / f"{n:02}.png", fakes.SLOW)
    save(tmp_path / "in" / "many.tif", *(PLAIN + n for n in range(12)))
    for n, kind in enumerate((fakes.DIES, fakes.HANGS, fakes.REFUSED, fakes.FAILS)):
        save(tmp_path / "in" / f"bad-{n}.png", kind)
    (tmp_path / "in" / "broken.png").write_bytes(b"broken")
    save(tmp_path / "in" / b"\xff.png".decode("utf-8", "surrogateescape"), PLAIN)
    (tmp_path / "memory").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))  # what the actors are given is of the tests
    killed: list[int] = []

    def kill(counts: Counts) -> None:
        if not killed and counts.pages > 4:
            killed.append(actors(tmp_path)[0])
            os.kill(killed[0], signal.SIGKILL)

    opener = FakeOpener(tmp_path / "memory")
    with local_engine(opener, 2, page_s=3.0) as pool:
        expected = read(tmp_path, "local", pool.read)
    monkeypatch.setenv("HWR_TEST_RUN", str(tmp_path))
    with ray_engine(opener, 2, page_s=3.0) as engine:
        assert ray.cluster_resources()["CPU"] == 2
        assert read(tmp_path, "ray", engine, kill) == expected
        assert len(killed) == 1
        cannot = FakeOpener(tmp_path / "memory", error="no runtime is installed")
        with ray_engine(cannot, 2) as broken, pytest.raises(RunnerError, match="no runtime is installed"):
            read(tmp_path, "broken", broken)
    assert len(expected) == 24 + 12 + 6
    deadline = time.monotonic() + 30
    while processes_of(tmp_path):
        assert time.monotonic() < deadline
        time.sleep(0.1)
