"""What the spool promises where nothing goes wrong, and where its limits are."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from hwr_export.errors import ScannerError
from hwr_export.scanner import spool as spool_module
from hwr_export.scanner.faults import SpoolFullError
from hwr_export.scanner.spool import Page, Spool
from tests.scanner.fakes import FakeTime, document

SINKS = ("archive", "desk")


def opened(path: Path, time: FakeTime | None = None, max_pages: int = 100, max_bytes: int = 1 << 20) -> Spool:
    return Spool(path, max_pages, max_bytes, SINKS, clock=None if time is None else time.clock(), reserve_bytes=0)


def read(spool: Spool, value: str = "7") -> Page:
    page = spool.next_unread()
    assert page is not None
    assert spool.store_result(page, document(page, value))
    return page


def deliver(spool: Spool, sink: str) -> str:
    delivery = spool.outbox.pending(sink)
    assert delivery is not None
    spool.outbox.delivered(delivery)
    return delivery.page_id


def test_a_page_goes_its_way_over_restarts(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        first = spool.add("watch", "a.png", b"first", "png")
        second = spool.add("watch", "b.png", b"second", ".PNG")
        assert [first.path.name, second.path.name] == [f"{first.id}.png", f"{second.id}.png"]
    with opened(tmp_path / "spool") as spool:
        assert spool.next_unread() == first
        assert spool.image(first) == b"first"
        assert read(spool).id == first.id
        assert spool.next_unread() == second
    with opened(tmp_path / "spool") as spool:
        assert spool.next_unread() == second
        delivery = spool.outbox.pending("desk")
        assert delivery is not None
        assert (delivery.page_id, delivery.document) == (first.id, document(first))
        assert deliver(spool, "desk") == first.id
        assert spool.outbox.pending("desk") is None
    with opened(tmp_path / "spool") as spool:
        assert deliver(spool, "archive") == first.id
        counts = spool.counts()
        assert (counts.unread, counts.undelivered) == (1, 0)
        assert {name: sink.delivered for name, sink in counts.sinks.items()} == {"archive": 1, "desk": 1}


def test_the_same_page_offered_again_is_the_one_that_is_there(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        page = spool.add("watch", "a.png", b"first", "png")
        assert spool.add("watch", "a.png", b"first", "png") == page
        read(spool)
        assert spool.add("watch", "a.png", b"first", "png").read
        for sink in SINKS:
            deliver(spool, sink)
        spool.forget_images(0)
    with opened(tmp_path / "spool") as spool:
        again = spool.add("watch", "a.png", b"first", "png")
        assert (again.id, again.key, again.read) == (page.id, "a.png", True)
        assert spool.next_unread() is None
        # Another image under the same name is another page: to drop it would be to lose it.
        assert spool.add("watch", "a.png", b"other", "png").id != page.id
        assert spool.add("scanner", "a.png", b"first", "png").id != page.id


def test_a_page_gets_one_result(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        page = spool.add("watch", "a", b"x", "png")
        assert spool.store_result(page, document(page, "1"))
        assert not spool.store_result(page, document(page, "2"))
        delivery = spool.outbox.pending("desk")
        assert delivery is not None
        assert delivery.document["fields"][0]["value"] == "1"
        with pytest.raises(ScannerError, match="holds no such page"):
            spool.store_result(stranger := Page("none", "s", "k", "", tmp_path, "", read=False), document(stranger))
        with pytest.raises(ScannerError, match=r"does not name this page under `page.id`"):
            spool.store_result(stranger, document(page))


def test_a_full_spool_refuses_and_takes_again(tmp_path: Path) -> None:
    with opened(tmp_path / "spool", max_pages=2) as spool:
        spool.add("watch", "1", b"x", "png")
        spool.add("watch", "2", b"x", "png")
        with pytest.raises(SpoolFullError, match=r"2 pages wait to be read and 0 to be delivered, of at most 2"):
            spool.add("watch", "3", b"x", "png")
        assert spool.add("watch", "2", b"x", "png").key == "2"  # known pages are answered even then
        read(spool)
        with pytest.raises(SpoolFullError, match=r"1 pages wait to be read and 1 to be delivered"):
            spool.add("watch", "3", b"x", "png")
        for sink in SINKS:
            deliver(spool, sink)
        spool.add("watch", "3", b"x", "png")
        assert len(list((tmp_path / "spool" / "pages").iterdir())) == 3


def test_images_are_bounded_too(tmp_path: Path) -> None:
    with opened(tmp_path / "spool", max_bytes=100) as spool:
        spool.add("watch", "1", b"x" * 60, "png")
        with pytest.raises(SpoolFullError, match=r"images take 60 bytes of 100"):
            spool.add("watch", "2", b"x" * 41, "png")
        spool.add("watch", "3", b"x" * 40, "png")
        read(spool)
        assert spool.forget_images(0) == 1
        spool.add("watch", "2", b"x" * 41, "png")


def test_names_that_are_no_text_are_kept_apart(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        page = spool.add("watch", "caf\udce9.png", b"x", "png")
        assert page.key == "caf\\udce9.png"
        assert spool.add("watch", "caf\udce9.png", b"x", "png").id == page.id
        assert read(spool).key == "caf\\udce9.png"
        with pytest.raises(ScannerError, match="no file suffix"):
            spool.add("watch", "x", b"x", "../../etc")


def test_an_image_that_changed_or_went_is_told(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        page = spool.add("watch", "a", b"image", "png")
        page.path.write_bytes(b"imbge")
        with pytest.raises(ScannerError, match="the image changed on the disk"):
            spool.image(page)
        page.path.unlink()
    with opened(tmp_path / "spool") as spool:
        assert spool.next_unread() == page  # it was acknowledged: somebody has to hear of it
        with pytest.raises(ScannerError, match="the image is gone from the spool; scan the page again"):
            spool.image(page)


def test_dead_letters_stay_and_can_be_sent_again(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        pages = [spool.add("watch", str(i), b"x", "png") for i in range(3)]
        for _ in pages:
            read(spool)
        while (delivery := spool.outbox.pending("desk")) is not None:
            spool.outbox.dead_letter(delivery, "400 Bad Request")
    with opened(tmp_path / "spool") as spool:
        letters = spool.outbox.dead_letters()
        assert [(letter.page_id, letter.sink, letter.error) for letter in letters] == [
            (page.id, "desk", "400 Bad Request") for page in pages
        ]
        assert spool.outbox.send_again("desk", pages[1].id) == 1
        assert deliver(spool, "desk") == pages[1].id
        assert spool.outbox.send_again("desk") == 2
        assert spool.outbox.discard("desk") == 0
        assert spool.outbox.discard("desk", pages[0].id, pending=True) == 1
        assert deliver(spool, "desk") == pages[2].id
        assert spool.counts().sinks["desk"].delivered == 2
        assert spool.counts().undelivered == 3  # the archive has none yet


def test_what_others_overtake_again_and_again_is_a_dead_letter(tmp_path: Path) -> None:
    """A sink that is down loses nothing, however often it is tried; a document that it cannot take is set aside."""
    with opened(tmp_path / "spool", max_pages=1000) as spool:
        bad = spool.add("watch", "bad", b"bad", "png")
        read(spool)
        for _ in range(200):
            delivery = spool.outbox.pending("desk")
            assert delivery is not None
            spool.outbox.retry_later(delivery, "down")
        assert spool.counts().sinks["desk"].dead == 0
        attempts = 0
        while spool.counts().sinks["desk"].dead == 0:
            attempts += 1
            good = spool.add("watch", str(attempts), b"good", "png")
            read(spool)
            assert deliver(spool, "desk") == good.id  # the least tried first
            delivery = spool.outbox.pending("desk")
            assert delivery is not None
            assert delivery.page_id == bad.id
            spool.outbox.retry_later(delivery, "500")
        assert attempts == 20
        assert [letter.page_id for letter in spool.outbox.dead_letters()] == [bad.id]


def test_one_process_holds_the_spool(tmp_path: Path) -> None:
    code = "import sys, pathlib, hwr_export.scanner.spool as s; s.Spool(pathlib.Path(sys.argv[1]), 1, 1)"
    command = [sys.executable, "-c", code, tmp_path / "spool"]
    with opened(tmp_path / "spool"):
        other = subprocess.run(command, check=False, capture_output=True, text=True)
        assert "another process holds the spool" in other.stderr
    with opened(tmp_path / "spool"):
        pass


def test_threads_that_offer_the_same_pages_add_each_once(tmp_path: Path) -> None:
    with opened(tmp_path / "spool") as spool:
        found: list[str] = []

        def offer() -> None:
            found.extend(spool.add("watch", str(i), b"x" * i, "png").id for i in range(20))

        threads = [threading.Thread(target=offer) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(found), len(set(found)), spool.counts().unread) == (80, 20, 20)
        assert len(list((tmp_path / "spool" / "pages").iterdir())) == 20


def test_fingerprints_are_kept_for_a_bounded_number_of_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spool_module, "REMEMBERED", 5)
    with Spool(tmp_path / "spool", 100, 1 << 20, reserve_bytes=0) as spool:
        waiting = spool.add("watch", "", b"waits", "png")
        for i in range(20):
            page = spool.add("watch", str(i), b"x", "png")
            spool.store_result(page, document(page))
        spool.forget_images(0)
        assert spool.next_unread() == waiting  # it is the oldest by far, and not done
    with sqlite3.connect(tmp_path / "spool" / "spool.db") as db:
        assert db.execute("SELECT count(*) FROM pages").fetchone() == (6,)
    db.close()


def test_a_spool_of_a_later_version_is_left_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "spool"):
        pass
    with sqlite3.connect(tmp_path / "spool" / "spool.db") as db:
        db.execute("PRAGMA user_version = 2")
    db.close()
    with pytest.raises(ScannerError, match=r"written by a later version \(schema 2, this one knows 1\)"):
        opened(tmp_path / "spool")
