"""Whatever people do, the file leads back to the same state; what was told to be kept survives a kill at any moment."""

import json
import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.errors import FormError
from hwr_export.scanner.review.ledger import FIRST, SECOND, SETTLED, THIRD, Entry, Key, Ledger, same_person
from hwr_export.scanner.review.store import ANSWERS, Store, read_ledger
from tests.conftest import ROOT

KEYS: list[Key] = [(page, "7 1", field) for page in ("a.png", "b.pdf#2") for field in ("sum", "day")]
STEP = st.tuples(
    st.sampled_from(["answer", "answer", "skip", "undo", "reopen"]),
    st.sampled_from(["anna", "Ben", " ben ", "cleo"]),
    st.sampled_from(KEYS),
    st.sampled_from(["1", "2", "", "unreadable"]),
)


def state(ledger: Ledger) -> object:
    """Everything that can be asked of a ledger."""
    by_key = {
        key: (
            ledger.asked(key),
            ledger.decision(key),
            ledger.people(key),
            ledger.other_of(key),
            ledger.skip_of(key),
        )
        for key in KEYS
    }
    return (
        by_key,
        {by: ledger.last_of(by) for by in ("anna", "ben", "cleo")},
        ledger.two_pass,
        ledger.id,
        ledger.entries,
    )


class Naive:
    """What the ledger ought to say, from the list of all that was done, without what was taken back."""

    def __init__(self) -> None:
        self.done: list[tuple[str, str, Key, int, str]] = []

    def undo(self, by: str) -> None:
        for i in reversed(range(len(self.done))):
            if same_person(self.done[i][1], by) and self.counts(i):
                del self.done[i]
                return

    def counts(self, i: int) -> bool:
        what, _, key, look, _ = self.done[i]
        later = [other for other in self.done[i + 1 :] if other[2] == key]
        if what == "skip":
            return not later
        return not any(other[0] == "answer" and other[3] == look for other in later)

    def asked(self, key: Key, two_pass: bool) -> int:
        live = {d[3]: (i, d[4]) for i, d in enumerate(self.done) if d[2] == key and d[0] == "answer"}
        if FIRST not in live:
            return FIRST
        if SECOND not in live:
            return SECOND if two_pass else SETTLED
        if live[FIRST][1] == live[SECOND][1]:
            return SETTLED
        return SETTLED if THIRD in live and live[THIRD][0] > max(live[FIRST][0], live[SECOND][0]) else THIRD


@given(st.booleans(), st.lists(STEP, max_size=30))
@settings(max_examples=60)
def test_any_sequence_of_answers_and_undos_replays_to_the_same_state(
    tmp_path_factory: pytest.TempPathFactory, two_pass: bool, steps: list[tuple[str, str, Key, str]]
) -> None:
    folder, naive = tmp_path_factory.mktemp("store"), Naive()
    with ExitStack() as opened:
        store = opened.enter_context(Store(folder, two_pass))
        for do, by, key, text in steps:
            ledger = store.ledger
            look = ledger.asked(key)
            if do == "reopen":
                before = state(ledger)
                opened.close()
                store = opened.enter_context(Store(folder))
                assert state(store.ledger) == before
            elif do == "undo" and (last := ledger.last_of(by)):
                store.append(by=by, do="undo", of=last.n)
                naive.undo(by)
            elif do in ("answer", "skip") and look != SETTLED and not same_person(ledger.other_of(key) or "", by):
                said = {"unreadable": "illegible"} if text == "unreadable" else {"value": text, "written": text}
                store.append(
                    by=by, do=do, page=key[0], file=key[1], field=key[2], look=look, **(said if do == "answer" else {})
                )
                naive.done.append((do, by, key, look, text))
            assert [store.ledger.asked(k) for k in KEYS] == [naive.asked(k, two_pass) for k in KEYS]
        before = state(store.ledger)
    assert state(read_ledger(folder)) == before


@given(st.data())
@settings(max_examples=30)
def test_a_torn_last_line_is_dropped_and_written_over(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("torn")
    with Store(folder) as store:
        for number in range(3):
            store.append(by="anna", do="answer", page="é.png", field="sum", look=1, value=str(number))
    whole = (folder / ANSWERS).read_bytes()
    lines = whole.splitlines(keepends=True)
    cut = data.draw(st.integers(len(whole) - len(lines[-1]), len(whole) - 1))
    (folder / ANSWERS).write_bytes(whole[:cut])
    assert read_ledger(folder).entries == 3
    with Store(folder) as store:
        assert store.ledger.entries == 3
        store.append(by="ben", do="skip", page="b.png", field="sum", look=1)
    assert [json.loads(line)["n"] for line in (folder / ANSWERS).read_bytes().splitlines()] == [1, 2, 3, 4]


def test_what_is_damaged_is_said_and_stops_the_review(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        for number in range(3):
            store.append(by="anna", do="answer", page="a.png", field="sum", look=1, value=str(number))
    lines = (tmp_path / ANSWERS).read_text().splitlines(keepends=True)
    for broken, said in (
        ([lines[0], lines[2]], r"line 2 of .*review\.jsonl is no answer.*it says that it is line 3"),
        ([lines[0], "{}\n", *lines[2:]], r"line 2 .* n: Field required; bring back the file"),
        (["\0\0\n", *lines[1:]], r"line 1 .*Invalid JSON"),
    ):
        (tmp_path / ANSWERS).write_text("".join(broken))
        with pytest.raises(FormError, match=said):
            Store(tmp_path)
        with pytest.raises(FormError, match=said):
            read_ledger(tmp_path)


def test_one_process_alone_writes(tmp_path: Path) -> None:
    with Store(tmp_path) as store:
        with pytest.raises(FormError, match="is in use: another `hwr-export review` shows these results"):
            Store(tmp_path)
        assert read_ledger(tmp_path).id == store.ledger.id
    Store(tmp_path).close()


def test_an_answer_that_the_disk_does_not_take_does_not_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store(tmp_path) as store:
        store.append(by="anna", do="answer", page="a.png", field="sum", look=1, value="1")
        before = (tmp_path / ANSWERS).read_bytes()

        def full(fd: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            with pytest.raises(FormError, match="cannot be written: No space left on device; the answer was not kept"):
                store.append(by="anna", do="answer", page="a.png", field="day", look=1, value="2")
            with pytest.raises(FormError, match="since No space left on device; end the review, and start it anew"):
                store.append(by="anna", do="answer", page="a.png", field="day", look=1, value="2")
        assert store.ledger.asked(("a.png", "", "day")) == FIRST
        assert (tmp_path / ANSWERS).read_bytes() == before
    with Store(tmp_path) as store:
        store.append(by="anna", do="answer", page="a.png", field="day", look=1, value="2")
        assert store.ledger.entries == 3


WRITES = """
import sys
from pathlib import Path
from hwr_export.scanner.review.store import Store
store = Store(Path(sys.argv[1]))
for number in range(store.ledger.entries, 10**6):
    store.append(by="anna", do="answer", page="a.png", field="sum", look=1, value=str(number))
    print(number, flush=True)
"""


def test_kill_9_loses_nothing_that_was_told(tmp_path: Path) -> None:
    for _ in range(2):
        command = [sys.executable, "-c", WRITES, str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as running:
            assert running.stdout is not None
            told = [running.stdout.readline() for _ in range(20)]
            running.send_signal(signal.SIGKILL)
            told += running.stdout.read().splitlines(keepends=True)
        last = int([line for line in told if line.endswith("\n")][-1])
        decision = read_ledger(tmp_path).decision(("a.png", "", "sum"))
        assert decision is not None
        assert int(decision.value) in (last, last + 1)


def test_an_entry_says_who_and_nothing_more_than_it_means() -> None:
    entry = Entry(
        n=2, at="2026-11-28T00:00:00Z", by="anna", do="answer", page="a", field="b", look=1, value="", unreadable="torn"
    )
    assert not entry.says_as(entry.model_copy(update={"unreadable": ""}))
    assert entry.says_as(entry.model_copy(update={"unreadable": "illegible", "by": "ben"}))
