"""What is read of a form's page, as results carry it: fields with value, probability, and whether they may be used.

Boxes are pixels of the image that was read, x to the right and y down, before anything was laid straight.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from hwr_export.scanner.page import Box

Status = Literal["read", "refused"]


@dataclass(frozen=True)
class Alternative:
    """Another value that a field may have."""

    value: str
    confidence: float


@dataclass(frozen=True)
class Written:
    """One box, or one character of a line: what the chosen reading says of it, None where it is empty."""

    label: str | None
    confidence: float  # of that label, or that the box is empty
    box: Box


@dataclass(frozen=True)
class FieldResult:
    """What stands in one field. `confidence` is the probability of `value`, which is "" where nothing was written.

    `accepted` says that the value may be used without a person; else `reasons` says why not, one or more of `REASONS`.
    """

    name: str
    value: str
    confidence: float
    accepted: bool
    reasons: tuple[str, ...]
    box: Box
    alternatives: tuple[Alternative, ...] = ()
    written: tuple[Written, ...] = ()

    def document(self, characters: bool = False) -> dict[str, Any]:
        """Return it as `read-form --json` prints it; with `characters`, as a folder of results keeps it."""
        found = asdict(self)
        written = found.pop("written")
        found["confidence"] = round(self.confidence, 6)
        found |= {"reasons": list(self.reasons), "box": list(self.box)}
        found["alternatives"] = [{"value": a.value, "confidence": round(a.confidence, 6)} for a in self.alternatives]
        if characters:
            found["characters"] = [
                {"label": w["label"], "confidence": round(w["confidence"], 6), "box": list(w["box"])} for w in written
            ]
        return found


@dataclass(frozen=True)
class PageResult:
    """One page. A refused page has no fields, and a reason that says what it is instead."""

    status: Status
    reason: str  # "" where it was read, else `code: a sentence`
    registration_px: float | None  # worst distance of a reference point from where it ought to be, pixels of the image
    ms: float
    fields: tuple[FieldResult, ...] = ()

    def document(self, path: str, characters: bool = False) -> dict[str, Any]:
        """Return it as `read-form --json` prints it."""
        return {
            "path": path,
            "status": self.status,
            "reason": self.reason,
            "registration_px": None if self.registration_px is None else round(self.registration_px, 3),
            "ms": round(self.ms, 1),
            "fields": [field.document(characters) for field in self.fields],
        }


# Why a field is left to a person.
REASONS = {
    "doubtful": "its probability is below what the release's calibration asks for",
    "not-calibrated": "the release was never calibrated for fields of this kind",
    "required-empty": "it must be filled in, and nothing is written there",
    "no-valid-reading": "nothing that may stand there looks like what is written",
    "struck-out": "something is struck out",
    "outside-box": "ink lies outside of the boxes, and it is not clear to which character it belongs",
    "doubtful-mark": "it cannot be told whether the box is ticked",
    "not-readable": "the release does not know the characters that may stand there",
    "rule-sum": "no likely readings add up",
    "rule-range": "no likely reading lies in the allowed range",
    "rule-order": "no likely readings are in the right order",
}


def document(form: str, release: str, pages: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the whole document of `read-form --json`."""
    return {"schema": 1, "form": form, "release": release, "pages": list(pages)}
