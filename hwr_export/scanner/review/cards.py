"""A referred field -> what a person is shown of it, as a JSON document for the page.

Who takes a second look is told nothing of what the model or the first person made of it: it is not in the document.
"""

from typing import Any

from hwr_export.errors import HwrError
from hwr_export.scanner.form.fields import AmountField, CheckboxField
from hwr_export.scanner.form.layout import Rect
from hwr_export.scanner.form.results import REASONS
from hwr_export.scanner.form.rules import fields_of
from hwr_export.scanner.review.desk import Desk, Item, Verdict, nothing_read
from hwr_export.scanner.review.judge import is_valid, judge, may_stand, rules_about, shown_value, written_of
from hwr_export.scanner.review.ledger import FIRST, SECOND, THIRD, Entry
from hwr_export.scanner.review.pictures import on_sheet, window_of
from hwr_export.scanner.review.results_folder import Character

UNREADABLE = ("illegible", "struck out", "not what was asked for", "the image is bad")


def card(desk: Desk, item: Item, look: int, before: Entry | None = None) -> dict[str, Any]:
    """Return what is shown of a field for one look at it.

    Args:
        before: this person's own answer, that was just taken back.
    """
    document = {
        "number": item.number,
        "look": look,
        "page": item.page.path,
        "skipped": desk.was_skipped(item.number),
        "field": _field(item),
        **_pictures(desk, item),
        "start": "",
        "reasons": [],
        "characters": [],
        "proposals": [],
    }
    if look == FIRST:
        start = as_read(item)
        proposals = [] if nothing_read(item.read) else [_proposal(item, start, "as read", item.read.confidence)]
        proposals += [
            _proposal(item, written_of(item.field, other.value), "or", other.confidence)
            for other in item.read.alternatives
        ]
        document |= {"start": start, "proposals": _different(proposals)} | _read(item)
    elif look == THIRD:
        looks = desk.looks(item)
        proposals = [_answered(item, looks[n], name) for n, name in ((FIRST, "first look"), (SECOND, "second look"))]
        if not nothing_read(item.read):
            proposals.append(_proposal(item, as_read(item), "as read", item.read.confidence))
        document |= {"proposals": _different(proposals)}
        document |= _read(item)
    if before is not None:
        document["start"] = before.written
    return document


def considered(item: Item, verdict: Verdict, known: dict[str, str | None], desk: Desk) -> dict[str, Any]:
    """Return what is said of a text while it is typed."""
    value, fields = verdict.judged.value, {field.name: field for field in desk.folder.form.fields}
    rules = []
    for rule, (says, kept) in zip(rules_about(desk.folder.form, item.read.name), verdict.rules, strict=True):
        others = [fields[name] for name in fields_of(rule) if name != item.read.name]
        values = [(other.label or other.name, known.get(other.name), other) for other in others]
        told = [
            {"label": label, "value": None if v is None else shown_value(other, v) or "empty"}
            for label, v, other in values
        ]
        rules.append({"says": says, "kept": kept, "others": told})
    return {
        "value": value,
        "shown": value if verdict.judged.problems else shown_value(item.field, value),
        "problems": list(verdict.judged.problems),
        "remarks": list(verdict.remarks),
        "rules": rules,
        "valid": verdict.valid,
    }


def as_read(item: Item) -> str:
    """Return what was read, box by box."""
    labels = "".join(character.label or " " for character in item.read.characters).rstrip()
    if isinstance(item.field, CheckboxField) or not is_valid(item.field, item.read.value):
        return item.read.value if isinstance(item.field, CheckboxField) else labels
    if len(item.read.characters) == len(item.place.boxes) and judge(item.field, labels).value == item.read.value:
        return labels
    return written_of(item.field, item.read.value)


def _field(item: Item) -> dict[str, Any]:
    field = item.field
    is_box = isinstance(field, CheckboxField)
    alphabet = "" if isinstance(field, CheckboxField) else field.alphabet
    return {
        "name": field.name,
        "label": field.label or field.name,
        "kind": field.kind,
        "may": may_stand(field),
        "slots": None if is_box or _is_line(item) else len(item.place.boxes),
        "right": isinstance(field, AmountField),
        "capitals": any(c.isupper() for c in alphabet) and not any(c.islower() for c in alphabet),
        "letters": any(c.isalpha() for c in alphabet),
    }


def _is_line(item: Item) -> bool:
    return not isinstance(item.field, CheckboxField) and item.field.boxes is None


def _pictures(desk: Desk, item: Item) -> dict[str, Any]:
    """Return where everything lies in the pictures, as fractions of them, and why there are none."""
    window, layout = window_of(item.place), desk.folder.layout
    boxes, problem, remark = list(item.place.boxes), "", ""
    try:
        scan = desk.pictures.scan(item.page)
        remark = scan.remark
        if _is_line(item):
            boxes = [on_sheet(scan.homography, character.box) for character in item.read.characters]
    except HwrError as err:
        problem = f"{err}."
    sheet = Rect(0, 0, layout.width, layout.height)
    return {
        "window": {"width_mm": window.width, "height_mm": window.height},
        "boxes": [_within(box, window) for box in boxes],
        "area": _within(item.place.area, sheet),
        "sheet": {"width_mm": sheet.width, "height_mm": sheet.height},
        "problem": problem,
        "remark": remark,
    }


def _within(rect: Rect, window: Rect) -> list[float]:
    return [
        round(value, 5)
        for value in (
            (rect.x - window.x) / window.width,
            (rect.y - window.y) / window.height,
            rect.width / window.width,
            rect.height / window.height,
        )
    ]


def _read(item: Item) -> dict[str, Any]:
    """Return what the model made of the field and its boxes."""
    return {
        "reasons": [REASONS.get(reason, reason) for reason in item.read.reasons],
        "characters": [] if nothing_read(item.read) else [_character(c) for c in item.read.characters],
    }


def _character(character: Character) -> dict[str, Any]:
    return {"label": character.label, "confidence": character.confidence}


def _proposal(item: Item, written: str, origin: str, confidence: float | None) -> dict[str, Any]:
    judged = judge(item.field, written)
    shown = judged.value if judged.problems else shown_value(item.field, judged.value)
    return {"written": written, "shown": shown, "from": origin, "confidence": confidence, "unreadable": ""}


def _answered(item: Item, entry: Entry, look: str) -> dict[str, Any]:
    return _proposal(item, entry.written, f"{look}, {entry.by}", None) | {"unreadable": entry.unreadable}


def _different(proposals: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return proposals without those that say what an earlier one says."""
    kept: dict[tuple[str, str], dict[str, Any]] = {}
    for proposal in proposals:
        kept.setdefault((proposal["shown"], proposal["unreadable"]), proposal)
    return list(kept.values())
