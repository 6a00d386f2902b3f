"""Clocks that jump, and what is left of a page when its time has come."""

import threading
from pathlib import Path

import pytest

from hwr_export.scanner.clock import Clock, system_clock
from hwr_export.scanner.spool import Page, Spool
from tests.scanner.fakes import FakeTime, document

DAY_S = 86_400.0
SECRET = "SIEBENUNDVIERZIG"


def opened(path: Path, time: FakeTime | None = None) -> Spool:
    return Spool(path, 100, 1 << 20, ("desk",), clock=time.clock() if time else None, reserve_bytes=0)


def read(spool: Spool) -> Page:
    page = spool.next_unread()
    assert page is not None
    spool.store_result(page, document(page, SECRET))
    return page


@pytest.mark.parametrize("jump_s", [-60 * 365 * DAY_S, -3600, 3600, 70 * 365 * DAY_S])
def test_images_live_as_long_as_stated_whatever_the_clock_says(tmp_path: Path, jump_s: float) -> None:
    time = FakeTime()
    with opened(tmp_path / "spool", time) as spool:
        spool.add("watch", "read", b"x", "png")
        waiting = spool.add("watch", "waiting", b"y", "png")
        page = read(spool)
        time.wall_s += jump_s
        assert spool.forget_images(100) == 0
        time.pass_s(99)
        assert spool.forget_images(100) == 0
        late = spool.add("watch", "late", b"z", "png")  # received in another year
        assert page.path.exists()
        time.pass_s(2)
        assert spool.forget_images(100) == 1
        assert not page.path.exists()
        time.pass_s(1000 * DAY_S)
        assert spool.forget_images(0) == 0  # what is not read is not deleted, ever
        assert [read(spool), read(spool)] == [waiting, late]  # in the order they came, whatever their dates
        assert spool.forget_images(0) == 2


def test_time_goes_on_over_restarts_of_the_service_and_of_the_machine(tmp_path: Path) -> None:
    time = FakeTime()
    with opened(tmp_path / "spool", time) as spool:
        spool.add("watch", "1", b"x", "png")
        read(spool)
    time.pass_s(60)  # the service is down, the machine is not
    with opened(tmp_path / "spool", time) as spool:
        assert spool.forget_images(61) == 0
    time.reboot(off_s=30 * DAY_S)
    with opened(tmp_path / "spool", time) as spool:
        assert spool.forget_images(61) == 0  # nobody can tell a month switched off from a clock that was set
        time.pass_s(0.5)
        assert spool.forget_images(61) == 0
        time.pass_s(1)
        assert spool.forget_images(61) == 1


def test_restarts_in_quick_succession_do_not_delay_for_ever(tmp_path: Path) -> None:
    """A machine that starts again every two minutes still forgets."""
    time = FakeTime()
    with opened(tmp_path / "spool", time) as spool:
        spool.add("watch", "1", b"x", "png")
        read(spool)
    starts = 0
    while True:
        time.reboot()
        starts += 1
        time.pass_s(10)
        with opened(tmp_path / "spool", time) as spool:
            forgotten = 0
            for _ in range(11):
                time.pass_s(10)
                forgotten += spool.forget_images(3600)
            if forgotten:
                break
    assert 3600 / 120 <= starts <= 3600 / 60


def test_an_idle_spool_does_not_write(tmp_path: Path) -> None:
    time = FakeTime()
    with opened(tmp_path / "spool", time) as spool:
        spool.add("watch", "1", b"x", "png")
        read(spool)
        spool.forget_images(DAY_S)
        before = [path.read_bytes() for path in (tmp_path / "spool").glob("spool.db*") if path.suffix != ".db-shm"]
        for _ in range(5):
            time.pass_s(10)
            spool.forget_images(DAY_S)
        assert before == [
            path.read_bytes() for path in (tmp_path / "spool").glob("spool.db*") if path.suffix != ".db-shm"
        ]


def test_the_clock_of_this_machine() -> None:
    clock: Clock = system_clock()
    assert clock.boot == system_clock().boot
    first = clock.steady_s()
    threading.Event().wait(0.01)
    assert 0 < clock.steady_s() - first < 10
    assert clock.stamp().endswith("+00:00")


def test_what_was_delivered_is_nowhere_any_more(tmp_path: Path) -> None:
    """Values, names and images are found in no file of the spool, once everybody has them."""
    path = tmp_path / "spool"

    def traces(word: bytes) -> list[str]:
        return [file.name for file in path.rglob("*") if file.is_file() and word in file.read_bytes()]

    with opened(path) as spool:
        for i in range(50):
            spool.add("watch", f"Frau-Maier-{i}.png", b"IMAGE-OF-A-FORM", "png")
            read(spool)
        assert traces(SECRET.encode())
        while (delivery := spool.outbox.pending("desk")) is not None:
            if delivery.document["page"]["key"] == "Frau-Maier-7.png":
                spool.outbox.dead_letter(delivery, "refused")
            else:
                spool.outbox.delivered(delivery)
        spool.forget_images(0)
        assert traces(b"IMAGE-OF-A-FORM") == []
        assert traces(SECRET.encode()) == ["spool.db"]  # the dead letter
        assert spool.outbox.discard("desk") == 1
        spool.forget_images(0)
        for word in (SECRET.encode(), b"Frau-Maier", b"IMAGE-OF-A-FORM"):
            assert traces(word) == []
        assert spool.add("watch", "Frau-Maier-7.png", b"IMAGE-OF-A-FORM", "png").read  # known by its fingerprint


def test_nobody_else_may_look(tmp_path: Path) -> None:
    with opened(tmp_path / "deep" / "spool") as spool:
        spool.add("watch", "1", b"x", "png")
        assert (tmp_path / "deep" / "spool" / "pages").stat().st_mode & 0o777 == 0o700
        assert (tmp_path / "deep" / "spool" / "spool.db").stat().st_mode & 0o077 == 0
