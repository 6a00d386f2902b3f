"""Scanners through `scanimage`: SANE's virtual ones, and programs that behave as drivers do on bad days."""

import os
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from hwr_export.scanner.sources import Arrived
from hwr_export.scanner.sources import scanimage as program
from hwr_export.scanner.sources.sane import SaneConfig, SaneSource
from tests.scanner.devices import scanner_says


def source(tmp_path: Path, **changes: object) -> SaneSource:
    config = {"kind": "sane", "device": "test:0", "retry_s": 0.05} | changes
    return SaneSource(SaneConfig.model_validate(config), tmp_path / "work")


def scan(found: SaneSource, enough: Callable[[list[Arrived]], bool], acknowledge: bool = True) -> list[Arrived]:
    """Take pages until there are enough, looking at every page and twenty times a second."""
    stop, pages = threading.Event(), list[Arrived]()

    def watch() -> None:
        end = time.monotonic() + 20
        while not enough(pages) and time.monotonic() < end:
            time.sleep(0.05)
        stop.set()

    watcher = threading.Thread(target=watch)
    watcher.start()
    for arrived in found.pages(stop):
        pages.append(arrived)
        if acknowledge:
            arrived.acknowledge()
        if enough(pages):
            stop.set()
    watcher.join()
    assert enough(pages)
    return pages


def put_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Put a program called scanimage in front of the real one."""
    path = tmp_path / "bin" / "scanimage"
    path.parent.mkdir()
    path.write_text(f"#!/bin/bash\n{text}\n")
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:{Path(shutil.which('bash')).parent}")


def test_the_next_sheet_is_fed_only_after_the_last_is_acknowledged(tmp_path: Path, sane: Path) -> None:
    found = source(tmp_path, options={"source": "Automatic Document Feeder"})
    stop = threading.Event()
    pages = found.pages(stop)
    for number in range(1, 4):
        arrived = next(pages)
        assert arrived.key.endswith(f"-{number}")
        time.sleep(0.2)
        assert len(list((tmp_path / "work").iterdir())) == 1
        arrived.acknowledge()
    stop.set()
    assert list(pages) == []


def test_pages_that_were_not_acknowledged_arrive_again(tmp_path: Path, sane: Path) -> None:
    found = source(tmp_path, options={"source": "Automatic Document Feeder"})
    stop = threading.Event()
    pages = found.pages(stop)
    first = next(pages)
    pages.close()
    again = next(source(tmp_path, options={"source": "Automatic Document Feeder"}).pages(stop))
    assert (again.key, again.image) == (first.key, first.image)


def test_one_request_is_one_page_however_often_it_is_tried(tmp_path: Path, sane: Path) -> None:
    (tmp_path / "asked").mkdir()
    (tmp_path / "asked" / "a button's name").touch()
    flatbed = {"mode": "flatbed", "requests": tmp_path / "asked"}
    stop = threading.Event()
    pages = source(tmp_path, **flatbed).pages(stop)
    first = next(pages)
    pages.close()
    (left,) = (tmp_path / "work").iterdir()
    shutil.copy(
        left, left.with_name(left.name.replace("_1.pnm", "0_1.pnm"))
    )  # of another try that came to its end late
    again = scan(source(tmp_path, **flatbed), lambda p: not list((tmp_path / "work").iterdir()) and bool(p))
    assert [page.key for page in again] == [first.key]
    assert first.key.startswith("a-button-s-name-")
    assert not list((tmp_path / "asked").iterdir())


def test_a_device_that_is_not_there(tmp_path: Path, sane: Path) -> None:
    found = source(tmp_path, device="nowhere:0")
    scan(found, lambda _: found.condition.state == "missing")
    assert "open of device nowhere:0 failed" in found.condition.detail


def test_an_option_that_the_device_does_not_have(tmp_path: Path, sane: Path) -> None:
    found = source(tmp_path, options={"colour": "blue"})
    scan(found, lambda _: found.condition.state == "fault")
    assert "unrecognized option '--colour=blue'" in found.condition.detail


def test_a_machine_without_scanimage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    found = source(tmp_path)
    scan(found, lambda _: found.condition.state == "no-program")
    assert "apt install sane-utils" in found.condition.advice


def test_a_scanner_that_hangs_is_given_up_and_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_program(tmp_path, monkeypatch, "exec /bin/sleep 1000")
    found = source(tmp_path, page_timeout_s=0.2)
    scan(found, lambda _: found.condition.detail == "no page within 0.2 s")


def test_a_driver_that_hangs_after_its_fault_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(program, "END_S", 0.2)
    put_program(
        tmp_path,
        monkeypatch,
        'read -r; echo "scanimage: sane_read: Device busy"; echo "Batch terminated, 0 pages"; exec /bin/sleep 1000',
    )
    found = source(tmp_path)
    started = time.monotonic()
    scan(found, lambda _: found.condition.state == "busy")
    assert time.monotonic() - started < 5


def test_a_jam_between_two_sheets_loses_neither(tmp_path: Path, sane: Path) -> None:
    found = source(tmp_path, options={"source": "Automatic Document Feeder"})
    stop = threading.Event()
    pages = found.pages(stop)
    next(pages).acknowledge()
    scanner_says(sane, "SANE_STATUS_JAMMED")
    pages.close()
    scan(found, lambda _: found.condition.state == "paper-jam")
    scanner_says(sane, "Default")
    assert len(scan(found, lambda p: len(p) == 10)) == 10


def test_what_cut_off_runs_left_goes(tmp_path: Path, sane: Path) -> None:
    (tmp_path / "work").mkdir()
    part = tmp_path / "work" / "x_y_1.pnm.part"
    part.touch()
    os.utime(part, (0, 0))
    found = source(tmp_path)
    scan(found, bool)
    assert not part.exists()
