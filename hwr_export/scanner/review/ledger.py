"""What people answered, entry by entry -> what is known of every field, and what is still asked about it.

The same entries in the same order always lead to the same state: an undo is an entry, nothing is ever taken back
otherwise. A field is looked at once, or (two-pass) by two people, and by a third look where those two differ.
"""

from typing import Literal

from pydantic import Field

from hwr_export.spec import Strict

Key = tuple[str, str, str]  # a page's path as the results have it, a stamp of its file, a field's name
SETTLED, FIRST, SECOND, THIRD = 0, 1, 2, 3


class Entry(Strict):
    """One line of the file of answers."""

    n: int = Field(ge=1, description="Number of the line.")
    at: str = Field(description="When, ISO 8601 in UTC.")
    by: str = Field("", max_length=40, description="Who.")
    do: Literal["begin", "two-pass", "answer", "skip", "undo"]
    id: str = Field("", description="Of a beginning: what labelled crops of this review are called by.")
    page: str = ""
    file: str = Field("", description="Of the page: size and time of change of its file when it was read.")
    field: str = ""
    look: int = Field(0, ge=0, le=3, description="Which look at the field: the first, the second, the third.")
    value: str = Field("", max_length=200, description="As results have it.")
    written: str = Field("", max_length=200, description="Box by box, a space for an empty one.")
    valid: bool = Field(True, description="Whether it may stand in the field.")
    unreadable: str = Field("", max_length=200, description="Why it cannot be read; then there is no value.")
    of: int = Field(0, ge=0, description="Of an undo: the line that counts no more.")

    @property
    def key(self) -> Key:
        return self.page, self.file, self.field

    def says_as(self, other: "Entry") -> bool:
        """Tell whether two answers are the same: one value, or both that it cannot be read."""
        return self.value == other.value and bool(self.unreadable) == bool(other.unreadable)


def same_person(one: str, other: str) -> bool:
    """Tell whether two names are one person's."""
    return _folded(one) == _folded(other)


class Ledger:
    """All entries so far, replayed."""

    def __init__(self) -> None:
        self.id = ""
        self.two_pass = False
        self.entries = 0
        self.answers: dict[Key, dict[int, Entry]] = {}
        self.skips: dict[Key, dict[int, Entry]] = {}
        self._done: dict[str, dict[int, Entry]] = {}  # by person, what they may take back; in order

    def apply(self, entry: Entry) -> Key | None:
        """Take the next entry in; return the field whose state it may have changed."""
        self.entries = entry.n
        if entry.do in ("begin", "two-pass"):
            self.id, self.two_pass = entry.id or self.id, self.two_pass or entry.do == "two-pass"
            return None
        if entry.do == "undo":
            return self._take_back(entry)
        if entry.do == "skip":
            self.skips.setdefault(entry.key, {})[entry.n] = entry
        else:
            self.answers.setdefault(entry.key, {})[entry.look] = entry
        self._done.setdefault(_folded(entry.by), {})[entry.n] = entry
        return entry.key

    def asked(self, key: Key) -> int:
        """Return which look a field still needs: FIRST, SECOND or THIRD, or SETTLED."""
        looks = self.answers.get(key, {})
        first, second, third = looks.get(FIRST), looks.get(SECOND), looks.get(THIRD)
        if first is None:
            return FIRST
        if second is None:
            return SECOND if self.two_pass else SETTLED
        if first.says_as(second):
            return SETTLED
        # A third look was a look at two answers: of others it says nothing.
        return SETTLED if third is not None and third.n > max(first.n, second.n) else THIRD

    def decision(self, key: Key) -> Entry | None:
        """Return the answer that counts, None where people have not settled the field."""
        if self.asked(key) != SETTLED:
            return None
        looks = self.answers[key]
        first, second = looks[FIRST], looks.get(SECOND)
        return first if second is None or first.says_as(second) else looks[THIRD]

    def people(self, key: Key) -> list[str]:
        """Return who has answered, in the order of the looks."""
        looks = self.answers.get(key, {})
        return [looks[look].by for look in sorted(looks)]

    def other_of(self, key: Key) -> str | None:
        """Return who may not take the look that a field needs: the first two are different people's."""
        looks = self.answers.get(key, {})
        other = looks.get({FIRST: SECOND, SECOND: FIRST}.get(self.asked(key), 0))
        return None if other is None else other.by

    def skip_of(self, key: Key) -> Entry | None:
        """Return the entry that puts a field off, None where it was answered since."""
        last = max(self.skips.get(key, {}).values(), key=lambda skip: skip.n, default=None)
        answered = max((answer.n for answer in self.answers.get(key, {}).values()), default=0)
        return last if last is not None and last.n > answered else None

    def last_of(self, by: str) -> Entry | None:
        """Return somebody's last entry that still counts, which an undo would take back."""
        done = self._done.get(_folded(by), {})
        return next((done[n] for n in reversed(done) if self._counts(done[n])), None)

    def _counts(self, entry: Entry) -> bool:
        if entry.do == "skip":
            return self.skip_of(entry.key) == entry
        return self.answers.get(entry.key, {}).get(entry.look) == entry

    def _take_back(self, undo: Entry) -> Key | None:
        entry = self._done.get(_folded(undo.by), {}).pop(undo.of, None)
        if entry is None:
            return None
        if self._counts(entry):
            if entry.do == "skip":
                del self.skips[entry.key][entry.n]
            else:
                del self.answers[entry.key][entry.look]
        return entry.key


def _folded(name: str) -> str:
    return " ".join(name.split()).casefold()
