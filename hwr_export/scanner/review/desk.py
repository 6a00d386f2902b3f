"""What is laid before whom, and what becomes of it: referred fields and the ledger -> the next field for a person.

First looks come first, in the order of the pages; then second and third looks; last what was skipped. An answer to a
look that somebody has taken meanwhile is refused, never laid over the other.
"""

import threading
import time
from array import array
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hwr_export.errors import FormError, HwrError
from hwr_export.scanner.form.fields import CheckboxField, FormField
from hwr_export.scanner.form.layout import Place
from hwr_export.scanner.review.crops import Crops
from hwr_export.scanner.review.judge import Judged, is_kept, is_valid, judge, rule_says, rules_about
from hwr_export.scanner.review.ledger import FIRST, SECOND, SETTLED, THIRD, Entry, Key, same_person
from hwr_export.scanner.review.pictures import Pictures
from hwr_export.scanner.review.referred import Referred
from hwr_export.scanner.review.results_folder import Folder, ReadField, ReadPage
from hwr_export.scanner.review.store import Store

PACE_S = 300.0  # of working time, over which fields a minute are counted
PAUSE_S = 60.0  # the longest that one field is taken to last
HELD_S = 120.0  # for which a field is before one person and is not laid before another, if there is a choice
UNREAD = {"no-valid-reading", "not-readable"}  # reasons, beside which an empty value says nothing
SURELY_EMPTY = 0.5  # probability that a box is empty, below which something seems to stand in it
NOBODY = -1
WIDEN_S = 5.0  # after which it is looked whether more was read
RETIRED = 4  # in the place of a look: the page was read again since


class TakenError(FormError):
    """A look that is not to be taken any more, or not by this person."""


@dataclass(frozen=True)
class Item:
    """A referred field with everything that belongs to it."""

    number: int
    page: ReadPage
    read: ReadField
    place: Place

    @property
    def key(self) -> Key:
        return self.page.key(self.read.name)

    @property
    def field(self) -> FormField:
        return self.place.field


@dataclass(frozen=True)
class Verdict:
    """What a text would mean: its value, what speaks against it, and what to make sure of."""

    judged: Judged
    remarks: tuple[str, ...]
    rules: tuple[tuple[str, bool | None], ...]  # of every rule about the field: in words, and whether it is kept

    @property
    def valid(self) -> bool:
        return not self.judged.problems and all(kept is not False for _, kept in self.rules)


@dataclass(frozen=True)
class Progress:
    """How far a review is. All but the pace are numbers of fields."""

    of: int
    done: int
    second: int  # waiting for a second look
    third: int
    skipped: int
    unreadable: int
    a_minute: float | None
    looks_left: int
    can_undo: bool


class Desk:
    """The review of one folder, for any number of people in turn."""

    def __init__(
        self, folder: Folder, referred: Referred, store: Store, pictures: Pictures, crops: Crops | None = None
    ) -> None:
        self.folder, self.referred, self.pictures = folder, referred, pictures
        self._store, self._ledger, self._crops = store, store.ledger, crops
        self._places = {place.field.name: place for place in folder.layout.places}
        self._lock = threading.RLock()
        # By number of a field: the look it needs, who may not take it, whether it was found unreadable.
        self._asked, self._barred, self._unreadable = bytearray(), array("h"), bytearray()
        self._skipped: dict[int, None] = {}
        self._before: dict[int, tuple[int, float]] = {}  # by person: the field before them, and since when
        self._widened = 0.0
        self._people: list[str] = []
        self._answered: deque[float] = deque(maxlen=1000)
        self._widen()
        if crops is not None:
            crops.tidy(self._ledger)

    @property
    def two_pass(self) -> bool:
        return self._ledger.two_pass

    def item(self, number: int) -> Item:
        """Return a referred field.

        Raises:
            TakenError: there is none of that number.
            FormError: it is not of this form.
        """
        if not 0 <= number < len(self._asked):
            raise TakenError(f"there is no referred field of the number {number}")
        page, read = self.referred[number]
        if read.name not in self._places:
            raise FormError(f"{page.path} has a field {read.name!r} that the form does not have")
        return Item(number, page, read, self._places[read.name])

    def overview(self, refused: int) -> dict[str, Any]:
        """Return what there is beside the referred fields, with at most so many of the pages that were refused."""
        with self._lock:
            found = self.referred
            pages = [{"page": page.path, "reason": page.reason} for page in found.refused_pages(refused)]
            counts = {"pages": found.pages, "accepted": found.accepted, "refused_count": found.refused}
            return counts | {"refused": pages}

    def next_for(self, by: str, after: int | None = None) -> int | None:
        """Return the number of the field to lay before somebody, None where nothing is left for them.

        Args:
            after: a field that is before them now: the one that will follow it.
        """
        with self._lock:
            me, now = self._person(by), time.monotonic()
            if now - self._widened > WIDEN_S:
                self._widen()
            if next(self._in_turn(me), None) is None:
                self._widen()
            held = {n for person, (n, since) in self._before.items() if person != me and now - since < HELD_S}
            free = (n for n in self._in_turn(me) if n != after)
            found = next(free, None)
            while found in held and (another := next(free, None)) is not None:
                found = another
            if found is not None and after is None:
                self._before[me] = found, now
            return found

    def _in_turn(self, me: int) -> Iterator[int]:
        """Yield the fields that somebody may look at, those first that are to be looked at first."""
        for look in (FIRST, SECOND, THIRD):
            at = self._asked.find(look)
            while at >= 0:
                if at not in self._skipped and self._barred[at] != me:
                    yield at
                at = self._asked.find(look, at + 1)
        yield from (n for n in list(self._skipped) if self._asked[n] and self._barred[n] != me)

    def asked(self, number: int) -> int:
        """Return which look a field needs, or SETTLED."""
        return self._asked[number]

    def looks(self, item: Item) -> dict[int, Entry]:
        """Return the answers to a field by look."""
        with self._lock:
            return dict(self._ledger.answers.get(item.key, {}))

    def was_skipped(self, number: int) -> bool:
        """Tell whether a field was put behind all others."""
        return number in self._skipped

    def consider(self, item: Item, written: str, look: int = FIRST) -> Verdict:
        """Judge a text for a field, beside everything else that is known of its page."""
        judged = judge(item.field, written)
        remarks: tuple[str, ...] = ()
        if look != SECOND and not judged.value and not judged.problems and _seems_written(item.read):
            remarks = ("Something seems to be written here. Accept again if the field is empty.",)
        form = self.folder.form
        rules = rules_about(form, item.read.name)
        known = self.known_values(item) if rules else {}
        known |= {item.read.name: None if judged.problems else judged.value}
        return Verdict(judged, remarks, tuple((rule_says(form, rule), is_kept(rule, known)) for rule in rules))

    def known_values(self, item: Item) -> dict[str, str | None]:
        """Return what is certain of the page's fields: accepted, or settled by people; None of all others."""
        known: dict[str, str | None] = {}
        with self._lock:
            for read in item.page.fields:
                decision = self._ledger.decision(item.page.key(read.name))
                value = read.value if decision is None else decision.value
                certain = read.accepted if decision is None else not decision.unreadable
                place = self._places.get(read.name)
                known[read.name] = value if certain and place and is_valid(place.field, value) else None
        return known

    def answer(self, item: Item, look: int, by: str, written: str, unreadable: str = "") -> tuple[Entry, str]:
        """Keep an answer; when this returns it is on the disk. Return it, and a remark if it made no labelled crops.

        Raises:
            TakenError: the field does not need this look, or not from this person.
            FormError: it cannot be kept.
        """
        with self._lock:
            self._check(item, look, by)
            said = {"by": by, "do": "answer", "look": look} | _named(item.key)
            if unreadable:
                said |= {"unreadable": unreadable}
            else:
                verdict = self.consider(item, written)
                said |= {"value": verdict.judged.value, "written": written.rstrip(), "valid": verdict.valid}
            before = self._ledger.decision(item.key)
            entry = self._store.append(**said)
            self._before.pop(self._person(by), None)
            self._answered.append(time.monotonic())
            return entry, self._changed(item, before)

    def skip(self, item: Item, look: int, by: str) -> Entry:
        """Put a field behind all others.

        Raises:
            TakenError: as `answer`.
        """
        with self._lock:
            self._check(item, look, by)
            entry = self._store.append(by=by, do="skip", look=look, **_named(item.key))
            self._skipped.pop(item.number, None)
            self._before.pop(self._person(by), None)
            self._update(item.number, item.key)
            return entry

    def undo(self, by: str) -> tuple[Item, Entry] | None:
        """Take somebody's last entry back; return its field and what it said, None where there is nothing to undo."""
        with self._lock:
            entry = self._ledger.last_of(by)
            number = None if entry is None else self.referred.number(entry.key)
            if entry is None or number is None:
                return None
            item = self.item(number)
            before = self._ledger.decision(item.key)
            self._store.append(by=by, do="undo", of=entry.n)
            if entry.do == "answer" and self._answered:
                self._answered.pop()
            self._changed(item, before)
            self._before[self._person(by)] = number, time.monotonic()
            return item, entry

    def prepare(self, item: Item) -> None:
        """Have ready what the field's turn will need; nothing is kept waiting meanwhile.

        Raises:
            HwrError: as its turn will say.
        """
        self.pictures.scan(item.page)
        if self._crops is not None:
            self._crops.prepare(item.page)

    def progress(self, by: str) -> Progress:
        """Return how far it is."""
        with self._lock:
            first, second, third = (self._asked.count(look) for look in (FIRST, SECOND, THIRD))
            return Progress(
                of=len(self._asked) - self._asked.count(RETIRED),
                done=self._asked.count(SETTLED),
                second=second,
                third=third,
                skipped=len(self._skipped),
                unreadable=self._unreadable.count(1),
                a_minute=self._pace(),
                looks_left=first * (2 if self.two_pass else 1) + second + third,
                can_undo=self._ledger.last_of(by) is not None,
            )

    def _check(self, item: Item, look: int, by: str) -> None:
        asked = self._asked[item.number]
        if asked == RETIRED:
            raise TakenError("the page was read again meanwhile, and this is what was read of it before")
        if asked != look:
            raise TakenError("this field was answered meanwhile, in another window")
        if self._barred[item.number] == self._person(by):
            raise TakenError("the first and the second look at a field are taken by two people")

    def _widen(self) -> None:
        """Take in what was read since: new fields, and of pages that were read again no old ones any more."""
        self._widened = time.monotonic()
        if not self.referred.extend() and self._asked:
            return
        more = len(self.referred) - len(self._asked)
        self._asked.extend(bytes([FIRST]) * more)
        self._unreadable.extend(bytes(more))
        self._barred.extend([NOBODY] * more)
        for key in dict.fromkeys([*self._ledger.answers, *self._ledger.skips]):
            number = self.referred.number(key)
            if number is not None:
                self._update(number, key)
        at = self.referred.retired.find(1)
        while at >= 0:
            self._asked[at], self._unreadable[at] = RETIRED, 0
            self._skipped.pop(at, None)
            at = self.referred.retired.find(1, at + 1)

    def _update(self, number: int, key: Key) -> None:
        """Write down what the ledger says of a field now."""
        decision = self._ledger.decision(key)
        self._asked[number] = self._ledger.asked(key)
        self._unreadable[number] = decision is not None and bool(decision.unreadable)
        other = self._ledger.other_of(key)
        self._barred[number] = NOBODY if other is None else self._person(other)
        if self._ledger.skip_of(key) is not None and self._asked[number]:
            self._skipped.setdefault(number)
        else:
            self._skipped.pop(number, None)

    def _changed(self, item: Item, before: Entry | None) -> str:
        """Follow a change of the ledger; return why there are no labelled crops, if there ought to be some."""
        self._update(item.number, item.key)
        if self._crops is None or isinstance(item.field, CheckboxField):
            return ""
        try:
            self._crops.follow(item.page, item.place, before, self._ledger.decision(item.key))
        except (HwrError, OSError) as err:
            return f"No labelled crops: {err}."
        return ""

    def _person(self, name: str) -> int:
        for number, known in enumerate(self._people):
            if same_person(known, name):
                return number
        self._people.append(name)
        return len(self._people) - 1

    def _pace(self) -> float | None:
        """Return fields a minute over the last minutes of work, breaks taken as `PAUSE_S`; None before it is known."""
        times = list(self._answered)
        worked, fields = 0.0, 0
        for before, now in zip(times[-2::-1], times[:0:-1], strict=True):
            worked, fields = worked + min(now - before, PAUSE_S), fields + 1
            if worked > PACE_S:
                break
        return 60 * fields / worked if fields > 4 and worked > 0 else None


def _named(key: Key) -> dict[str, str]:
    return dict(zip(("page", "file", "field"), key, strict=True))


def nothing_read(read: ReadField) -> bool:
    """Tell whether the model could make nothing of what is written."""
    return not read.value and not UNREAD.isdisjoint(read.reasons)


def _seems_written(read: ReadField) -> bool:
    return nothing_read(read) or any(c.label or c.confidence < SURELY_EMPTY for c in read.characters)
