"""From a source into the spool: what waits, and for how long, while the spool takes nothing."""

import threading
from collections.abc import Generator
from pathlib import Path

import pytest

from hwr_export.scanner import intake
from hwr_export.scanner.faults import SpoolDiskError
from hwr_export.scanner.intake import Intake
from hwr_export.scanner.sources import Arrived, Source
from hwr_export.scanner.spool import Spool
from tests.scanner.devices import until


class Pages(Source):
    """Yields numbered pages; `acknowledged` are those that may go. `refused`: how often that fails at first."""

    def __init__(self, count: int, refused: int = 0) -> None:
        super().__init__("pages")
        self.count, self.refused, self.acknowledged = count, refused, list[int]()

    def pages(self, stop: threading.Event) -> Generator[Arrived, None, None]:
        for number in range(self.count):

            def acknowledge(number: int = number) -> None:
                if self.refused:
                    self.refused -= 1
                    raise PermissionError(13, "Permission denied")
                self.acknowledged.append(number)

            yield Arrived(self.name, str(number), b"x" * 10, ".png", acknowledge)
            if stop.is_set():
                return


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "RETRY_S", 0.02)


def test_a_full_spool_holds_the_source_until_there_is_room(tmp_path: Path) -> None:
    source = Pages(3)
    with Spool(tmp_path / "spool", 2, 1000, ("sink",), reserve_bytes=0) as spool:
        running = Intake(source, spool, threading.Event())
        until(lambda: running.condition.state == "spool-full")
        assert source.acknowledged == [0, 1]
        page = spool.next_unread()
        spool.store_result(page, {"page": {"id": page.id}})
        spool.outbox.delivered(spool.outbox.pending("sink"))
        until(lambda: not running.running)
        assert source.acknowledged == [0, 1, 2]
        assert running.condition.state == "starting"
        assert running.failure is None


def test_a_disk_that_refuses_is_a_state_and_the_page_stays_with_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = Pages(1)
    with Spool(tmp_path / "spool", 10, 1000, reserve_bytes=0) as spool:

        def refuse(*_: object) -> None:
            raise SpoolDiskError("no room", "disk-full")

        with monkeypatch.context() as broken:
            broken.setattr(spool, "add", refuse)
            running = Intake(source, spool, threading.Event())
            until(lambda: running.condition.state == "disk-full")
            assert source.acknowledged == []
        until(lambda: source.acknowledged == [0])


def test_an_acknowledgement_that_fails_is_tried_again_and_the_page_is_kept_once(tmp_path: Path) -> None:
    source = Pages(2, refused=3)
    with Spool(tmp_path / "spool", 10, 1000, reserve_bytes=0) as spool:
        running = Intake(source, spool, threading.Event())
        until(lambda: running.condition.state == "held" or not running.running)
        until(lambda: source.acknowledged == [0, 1])
        assert spool.counts().unread == 2


def test_stopping_leaves_what_the_spool_does_not_take(tmp_path: Path) -> None:
    source = Pages(5)
    with Spool(tmp_path / "spool", 1, 1000, reserve_bytes=0) as spool:
        running = Intake(source, spool, threading.Event())
        until(lambda: running.condition.state == "spool-full")
        running.stop()
        until(lambda: not running.running)
    assert source.acknowledged == [0]


def test_what_nobody_foresaw_is_kept_for_the_service_and_logged_without_its_text(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with Spool(tmp_path / "spool", 10, 1000, reserve_bytes=0) as spool:
        monkeypatch.setattr(spool, "add", lambda *_: {}["314159"])
        running = Intake(Pages(1), spool, threading.Event())
        until(lambda: not running.running)
    assert isinstance(running.failure, KeyError)
    said = capsys.readouterr().err
    assert '"error": "KeyError"' in said
    assert "test_intake.py" in said
    assert "314159" not in said
