"""The spool against a model that fits on a page: any order of uses, crashes and jumps of the clock among them."""

import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from hwr_export.scanner.faults import SpoolFullError
from hwr_export.scanner.outbox import Delivery
from hwr_export.scanner.spool import Spool
from tests.scanner.fakes import FakeTime, document

SINKS = ("archive", "desk")
MAX_PAGES, MAX_BYTES, KEEP_S = 6, 60, 100.0
names = st.sampled_from([f"page-{i}" for i in range(12)])


class Pages(RuleBasedStateMachine):
    offered = Bundle("offered")

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.lives = 0
        self.time = FakeTime()
        self.ids: dict[str, str] = {}  # by name: every page that was ever acknowledged
        self.unread: list[str] = []
        self.images: dict[str, float | None] = {}  # by name: seconds since it was read, None while it is not
        self.owed: dict[str, dict[str, str]] = {sink: {} for sink in SINKS}  # sink -> name -> "pending" or "dead"
        self.delivered = dict.fromkeys(SINKS, 0)
        self.open()

    def open(self) -> None:
        path = self.folder / f"life-{self.lives}"
        self.spool = Spool(path, MAX_PAGES, MAX_BYTES, SINKS, clock=self.time.clock(), reserve_bytes=0)

    def open_pages(self) -> int:
        return len(set(self.unread).union(*self.owed.values()))

    def image(self, name: str) -> bytes:
        return name.encode() + b"." * (int(name[5:]) % 3 * 4)

    @rule(target=offered, name=names)
    def add(self, name: str) -> str:
        image = self.image(name)
        size = sum(len(self.image(other)) for other in self.images)
        full = self.open_pages() >= MAX_PAGES or size + len(image) > MAX_BYTES
        if name not in self.ids and full:
            with pytest.raises(SpoolFullError):
                self.spool.add("watch", name, image, "png")
            return name
        page = self.spool.add("watch", name, image, "png")
        if name in self.ids:
            assert page.id == self.ids[name]
        else:
            assert page.id not in self.ids.values()
            self.ids[name] = page.id
            self.unread.append(name)
            self.images[name] = None
        assert page.read == (name not in self.unread)
        return name

    @precondition(lambda self: self.unread)
    @rule()
    def read(self) -> None:
        page = self.spool.next_unread()
        assert page is not None
        assert (page.key, page.id) == (self.unread[0], self.ids[self.unread[0]])
        assert self.spool.image(page) == self.image(page.key)
        assert self.spool.store_result(page, document(page, page.key))
        assert not self.spool.store_result(page, document(page, "another"))
        self.unread.pop(0)
        self.images[page.key] = 0.0
        for sink in SINKS:
            self.owed[sink][page.key] = "pending"

    def due(self, sink: str) -> tuple[Delivery, str] | None:
        delivery = self.spool.outbox.pending(sink)
        if delivery is None:
            assert "pending" not in self.owed[sink].values()
            return None
        name = delivery.document["page"]["key"]
        assert self.owed[sink][name] == "pending"
        assert delivery.document["fields"][0]["value"] == name
        assert delivery.page_id == self.ids[name]
        return delivery, name

    @rule(sink=st.sampled_from(SINKS), twice=st.booleans())
    def deliver(self, sink: str, twice: bool) -> None:
        if (due := self.due(sink)) is not None:
            for _ in range(1 + twice):
                self.spool.outbox.delivered(due[0])
            del self.owed[sink][due[1]]
            self.delivered[sink] += 1

    @rule(sink=st.sampled_from(SINKS))
    def put_off(self, sink: str) -> None:
        if (due := self.due(sink)) is not None:
            self.spool.outbox.retry_later(due[0], "down")

    @rule(sink=st.sampled_from(SINKS))
    def refuse(self, sink: str) -> None:
        if (due := self.due(sink)) is not None:
            self.spool.outbox.dead_letter(due[0], "no")
            self.owed[sink][due[1]] = "dead"

    @rule(sink=st.sampled_from(SINKS), again=st.booleans())
    def empty_dead_letters(self, sink: str, again: bool) -> None:
        dead = [name for name, state in self.owed[sink].items() if state == "dead"]
        assert (self.spool.outbox.send_again(sink) if again else self.spool.outbox.discard(sink)) == len(dead)
        for name in dead:
            if again:
                self.owed[sink][name] = "pending"
            else:
                del self.owed[sink][name]

    @rule(seconds=st.sampled_from([1.0, 60.0, 101.0]), jump_s=st.sampled_from([0.0, -1e9, 1e9]))
    def wait(self, seconds: float, jump_s: float) -> None:
        self.time.pass_s(seconds)
        self.time.wall_s += jump_s
        for name, age_s in self.images.items():
            if age_s is not None:
                self.images[name] = age_s + seconds

    @rule()
    def forget(self) -> None:
        gone = [name for name, age_s in self.images.items() if age_s is not None and age_s >= KEEP_S]
        assert self.spool.forget_images(KEEP_S) == len(gone)
        for name in gone:
            del self.images[name]

    @rule(crash=st.booleans())
    def restart(self, crash: bool) -> None:
        """End the process; of a crash remains what is on the disk at that moment."""
        old = self.folder / f"life-{self.lives}"
        new = self.folder / f"life-{self.lives + 1}"
        if crash:
            shutil.copytree(old, new)
            (new / "pages" / f"{'0' * 32}.png").write_bytes(b"of a page that was not acknowledged")
        self.spool.close()
        if crash:
            shutil.rmtree(old)
        else:
            old.rename(new)
        self.lives += 1
        self.open()

    @invariant()
    def counts_are_those_of_the_model(self) -> None:
        counts = self.spool.counts()
        assert counts.unread == len(self.unread)
        assert counts.undelivered == self.open_pages() - len(self.unread)
        assert counts.images == len(self.images)
        assert counts.image_bytes == sum(len(self.image(name)) for name in self.images)
        for sink in SINKS:
            states = list(self.owed[sink].values())
            found = counts.sinks[sink]
            assert (found.pending, found.dead) == (states.count("pending"), states.count("dead"))
            assert found.delivered == self.delivered[sink]
        files = {path.stem for path in (self.folder / f"life-{self.lives}" / "pages").iterdir()}
        assert files == {self.ids[name] for name in self.images}

    def teardown(self) -> None:
        self.spool.close()
        shutil.rmtree(self.folder)


TestPages = Pages.TestCase
TestPages.settings = settings(max_examples=20, stateful_step_count=30, deadline=None)
