"""Couriers: each sink on its own, nothing given up, nothing twice."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hwr_export.errors import ScannerError
from hwr_export.scanner.faults import SpoolDiskError
from hwr_export.scanner.outbox import Delivery
from hwr_export.scanner.sinks import JsonlConfig, SinkRefusedError, SinkUnavailableError, delivery
from hwr_export.scanner.sinks.delivery import Courier, couriers
from hwr_export.scanner.spool import Spool
from tests.scanner.fakes import FakeTime, document

ARCHIVE = JsonlConfig(kind="jsonl", name="archive", directory=Path("unused"))
SECRET = "8264"


class ScriptedSink:
    """Answers what the test wants, and remembers what it got."""

    def __init__(self) -> None:
        self.got: list[str] = []
        self.answer: Callable[[str], None] = lambda key: None

    def deliver(self, document: dict[str, Any], key: str) -> None:
        self.answer(key)
        self.got.append(key)

    def close(self) -> None:
        pass


def down(key: str) -> None:
    raise SinkUnavailableError("no answer")


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    with Spool(tmp_path / "spool", 10_000, 1 << 20, ("archive",), reserve_bytes=0) as spool:
        yield spool


def fill(spool: Spool, count: int, start: int = 0) -> list[str]:
    ids = []
    for i in range(start, start + count):
        page = spool.add("watch", str(i), b"x", "png")
        spool.store_result(page, document(page, SECRET))
        ids.append(page.id)
    return ids


def longest(low: float, high: float) -> float:
    return high


def test_an_hour_without_the_sink_loses_nothing_and_asks_seldom(spool: Spool) -> None:
    """An hour by a fake clock: pages keep coming, the courier backs off to a minute, and then delivers all at once."""
    sink, now = ScriptedSink(), FakeTime()
    sink.answer = down
    courier = Courier(spool.outbox, ARCHIVE, sink, longest)
    ids, waits = fill(spool, 3), []
    started_s = now.steady_s
    while now.steady_s - started_s < 3600:
        wait_s = courier.step()
        assert wait_s is not None
        waits.append(wait_s)
        now.pass_s(wait_s)
        ids += fill(spool, 1, len(ids))
    assert waits[:8] == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(waits) < 70
    assert courier.trouble == "no answer"
    assert (spool.counts().sinks["archive"].pending, spool.counts().sinks["archive"].dead) == (len(ids), 0)
    sink.answer = lambda key: None
    while courier.step() == 0:
        pass
    assert courier.step() is None
    assert courier.trouble is None
    assert sorted(sink.got) == sorted(ids)


def test_waits_are_spread_and_as_long_as_asked(spool: Spool) -> None:
    sink = ScriptedSink()
    fill(spool, 1)
    sink.answer = down
    courier = Courier(spool.outbox, ARCHIVE, sink)
    found = [courier.step() for _ in range(12)]
    for wait_s, high in zip(found, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60, 60], strict=True):
        assert wait_s is not None
        assert high / 2 <= wait_s <= high
    assert len(set(found[6:])) > 1

    def busy(key: str) -> None:
        raise SinkUnavailableError("429", retry_after_s=500)

    sink.answer = busy
    assert courier.step() == 500
    sink.answer = lambda key: None
    assert courier.step() == 0
    fill(spool, 1, 1)
    sink.answer = down
    wait_s = courier.step()
    assert wait_s is not None
    assert wait_s <= 1  # what worked once starts over


def test_what_is_refused_is_kept_and_the_rest_goes_on(spool: Spool) -> None:
    sink = ScriptedSink()
    ids = fill(spool, 5)

    def answer(key: str) -> None:
        if key == ids[2]:
            raise SinkRefusedError("the receiver answered 422")

    sink.answer = answer
    courier = Courier(spool.outbox, ARCHIVE, sink)
    while courier.step() == 0:
        pass
    assert sink.got == [*ids[:2], *ids[3:]]
    (letter,) = spool.outbox.dead_letters()
    assert (letter.page_id, letter.error) == (ids[2], "the receiver answered 422")


def test_a_mark_that_fails_is_repeated_before_anything_else_is_sent(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = ScriptedSink()
    ids = fill(spool, 3)
    courier = Courier(spool.outbox, ARCHIVE, sink)

    real, refusals = spool.outbox.delivered, [1, 2, 3]

    def refused(delivery: Delivery) -> None:
        if refusals:
            refusals.pop()
            raise SpoolDiskError("no space", "disk-full")
        real(delivery)

    monkeypatch.setattr(spool.outbox, "delivered", refused)
    assert [courier.step() for _ in range(3)] == [1, 1, 1]
    assert (sink.got, courier.trouble) == (ids[:1], "no space")
    assert courier.step() == 0
    assert sink.got == ids[:1]
    while courier.step() == 0:
        pass
    assert sink.got == ids
    assert courier.trouble is None


def test_a_defect_in_a_sink_is_told_by_type_alone_and_retried(spool: Spool, caplog: pytest.LogCaptureFixture) -> None:
    sink = ScriptedSink()
    fill(spool, 1)

    def defect(key: str) -> None:
        raise KeyError(SECRET)

    sink.answer = defect
    courier = Courier(spool.outbox, ARCHIVE, sink)
    with caplog.at_level(logging.DEBUG):
        wait_s = courier.step()
    assert wait_s is not None
    assert wait_s > 0
    assert "defect in the sink: KeyError" in caplog.text
    assert SECRET not in caplog.text
    assert SECRET not in str(courier.trouble)
    assert spool.counts().sinks["archive"].pending == 1


def test_a_sink_that_hangs_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hanging, working = ScriptedSink(), ScriptedSink()
    let_go = threading.Event()
    hanging.answer = lambda key: let_go.wait(30) and None
    sinks = {"stuck": hanging, "free": working}
    monkeypatch.setattr(delivery, "open_sink", lambda config: sinks[config.name])
    configs = tuple(JsonlConfig(kind="jsonl", name=name, directory=tmp_path / name) for name in sinks)
    with (
        Spool(tmp_path / "spool", 100, 1 << 20, ("stuck", "free"), reserve_bytes=0) as spool,
        couriers(spool, configs),
    ):
        started = time.monotonic()
        ids = fill(spool, 20)
        while len(working.got) < 20:
            assert time.monotonic() - started < 5  # woken by each result, not by looking every five seconds
            time.sleep(0.01)
        assert working.got == ids
        assert hanging.got == []
        let_go.set()
    assert spool._listeners == ()
    with Spool(tmp_path / "spool", 100, 1 << 20, ("stuck", "free"), reserve_bytes=0) as spool:
        assert spool.counts().sinks["stuck"].pending == 20 - len(hanging.got)


def test_couriers_must_be_those_the_spool_owes_to(spool: Spool) -> None:
    desk = JsonlConfig(kind="jsonl", name="desk", directory=Path("unused"))
    with (
        pytest.raises(ScannerError, match=r"owes results to \('archive',\), and the sinks are \['desk'\]"),
        couriers(spool, (desk,)),
    ):
        pass
