"""Pages whose truth is known -> from which probability on a field is accepted, for a stated bound on the error; the
release carries it as `acceptance.json`.

Thresholds are tried from the strictest on, and the first that cannot be shown to hold ends the search (fixed sequence
testing: Angelopoulos et al. 2021, 4.1), so that looking for one costs no confidence. A page is one sample: its
characters are of one hand, on one scan.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError

from hwr_export.errors import ReleaseError
from hwr_export.release import ACCEPTANCE, Release
from hwr_export.scanner.form.fields import CheckboxField, FormField
from hwr_export.spec import Strict, first_problem
from hwr_export.statistics import rate_upper_bound

Family = Literal["digits", "letters", "checkbox"]
# Kinds of fields that are judged together: what is written in them is read alike.
FAMILIES: dict[str, Family] = {
    "digits": "digits",
    "date": "digits",
    "amount": "digits",
    "phone": "digits",
    "card": "digits",
    "id": "digits",
    "letters": "letters",
    "alphanumeric": "letters",
    "iban": "letters",
    "checkbox": "checkbox",
}
BOUND = 0.001
CONFIDENCE = 0.95
STRICTEST, STEP = 0.3, 0.005  # share of the fields that the first threshold accepts, and how many more each next one


class Threshold(Strict):
    """From which probability on fields of a family are accepted, and what shows that this holds the bound."""

    family: Family
    least: float = Field(ge=0, le=1)
    pages: int = Field(ge=0)
    fields: int = Field(ge=0, description="Of that family on those pages.")
    accepted: int = Field(ge=0)
    wrong: int = Field(ge=0, description="Of the accepted.")
    wrong_pages: int = Field(ge=0)
    upper_bound: float = Field(ge=0, le=1, description="Of the share of wrong ones among the accepted.")
    bound: float = Field(BOUND, gt=0, lt=1, description="That the upper bound was to keep.")
    confidence: float = Field(CONFIDENCE, gt=0.5, lt=1, description="Of the upper bound.")
    pages_sha256: str = Field("", pattern=r"^([0-9a-f]{64})?$", description="Of the results and truth it comes from.")


class Acceptance(Strict):
    """`acceptance.json`. A field whose family has no threshold is left to a person."""

    schema_: Literal[1] = Field(1, alias="schema")
    thresholds: tuple[Threshold, ...] = Field(max_length=8)

    def least(self, family: Family) -> float | None:
        """Return from which probability on such fields are accepted, None where that was never found out."""
        return next((t.least for t in self.thresholds if t.family == family), None)


@dataclass(frozen=True)
class Judged:
    """Fields of one family whose truth is known, each (N,); without those that another reason refers anyway."""

    confidence: npt.NDArray[np.float64]
    wrong: npt.NDArray[np.bool_]
    page: npt.NDArray[np.int64]


def load_acceptance(release: Release) -> Acceptance | None:
    """Return what a release says of forms, None where it says nothing.

    Raises:
        ReleaseError: the document is not one, or was changed.
    """
    entry = release.entry(ACCEPTANCE)
    if entry is None:
        return None
    try:
        return Acceptance.model_validate_json(release.read(entry))
    except ValidationError as err:
        raise ReleaseError(
            f"{release.path / ACCEPTANCE} is no document this version can read: {first_problem(err)}; "
            "calibrate the release again with `hwr-export form calibrate`"
        ) from err


def reader_of(field: FormField, label_sets: Sequence[str]) -> int | None:
    """Return which of some models reads a field: the first that knows every character that may stand in it."""
    if isinstance(field, CheckboxField):
        return None
    return next((i for i, labels in enumerate(label_sets) if set(field.alphabet) <= set(labels)), None)


def choose(family: Family, judged: Judged, bound: float = BOUND, confidence: float = CONFIDENCE) -> Threshold | None:
    """Return the lowest threshold whose error is shown to be at most `bound`; None where none is, on so few pages."""
    order = np.argsort(-judged.confidence, kind="stable")
    shares = np.arange(STRICTEST, 1 + STEP / 2, STEP)
    found: Threshold | None = None
    pages = len(np.unique(judged.page))
    for share in shares:
        count = round(float(share) * len(order))
        if count == 0:
            continue
        least = float(judged.confidence[order[count - 1]])
        accepted = judged.confidence >= least
        wrong_pages = judged.page[accepted & judged.wrong]
        upper = error_bound(int(accepted.sum()), wrong_pages, pages, confidence)
        if upper > bound:
            break
        found = Threshold(
            family=family,
            least=least,
            pages=pages,
            fields=len(order),
            accepted=int(accepted.sum()),
            wrong=len(wrong_pages),
            wrong_pages=len(np.unique(wrong_pages)),
            upper_bound=round(upper, 8),
            bound=bound,
            confidence=confidence,
        )
    return found


def error_bound(accepted: int, wrong_pages: npt.NDArray[np.int64], pages: int, confidence: float = CONFIDENCE) -> float:
    """Return the one-sided upper bound of the share of wrong fields among the accepted, clustered by page.

    The share of pages with a wrong field is bounded exactly (Clopper and Pearson 1934), and taken times the wrong
    fields on such a page over the accepted fields on any.

    Args:
        wrong_pages: the page of each accepted field that is wrong.
    """
    if accepted == 0:
        return 1.0
    bad = len(np.unique(wrong_pages))
    on_each = len(wrong_pages) / bad if bad else 1.0
    return min(1.0, rate_upper_bound(bad, pages, confidence) * on_each * pages / accepted)


def few_pages(family: Family, judged: Judged, bound: float, confidence: float) -> str:
    """Return why no threshold was found, as a sentence: how many are wrong, and how many are needed."""
    pages, count = len(np.unique(judged.page)), round(STRICTEST * len(judged.confidence))
    surest = judged.wrong[np.argsort(-judged.confidence, kind="stable")[:count]]
    needed = int(np.ceil(np.log(1 - confidence) / np.log1p(-bound)))
    return (
        f"{pages} pages with {len(judged.confidence)} {family} fields do not show that at most {bound:.2%} of the "
        f"accepted ones are wrong: of the {count} surest, {int(surest.sum())} are wrong, and it takes {needed:,} "
        "without a wrong one; give more pages, or a larger --bound"
    )
