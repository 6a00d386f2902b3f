"""What a report says, as plain values: read from a release's evidence by `collect`, drawn by `charts`, told by `page`.

A section whose evidence is not there is a `Missing`, which names the command that makes it. Nothing here is rounded.
"""

from dataclasses import dataclass
from typing import Any

from hwr_export.report.cost_facts import FAIL, UNKNOWN, Bench, OnBackend, Profile


@dataclass(frozen=True)
class Missing:
    """Evidence that is not there: why, and the command that makes it."""

    why: str
    command: str


@dataclass(frozen=True)
class Answers:
    """What one side gets right of `n` images and how sure it is, as `answers.describe_answers` keeps it."""

    right: int
    n: int
    accuracy_ci95: tuple[float, float]
    confusion: tuple[tuple[int, int, int], ...]
    reliability: tuple[tuple[float, float, int], ...]
    risk_coverage: tuple[tuple[float, float], ...]

    @property
    def accuracy(self) -> float:
        return self.right / self.n

    @property
    def errors(self) -> list[tuple[int, int, int]]:
        """True class, answered class and images of every confusion, the most frequent first."""
        return sorted((c for c in self.confusion if c[0] != c[1]), key=lambda c: -c[2])


@dataclass(frozen=True)
class Judged(OnBackend):
    """One file on one backend, and the verdict on it; rates are fractions, `_pt` percentage points."""

    backend: str
    precision: str
    path: str
    verdict: str
    reasons: tuple[str, ...]
    n: int
    agreement: int
    flips: dict[str, int] | None
    accuracy: float | None
    delta_pt: float | None
    delta_ci_pt: tuple[float, float] | None
    max_logit_difference: float | None
    tolerance: float | None
    task: dict[str, Any] | None
    corruptions: dict[str, Any] | None
    answers: Answers | None


@dataclass(frozen=True)
class Reading:
    """What one side answers to one image: the label, the distance to the second best logit, and its confidence."""

    side: str
    answer: str
    margin: float
    confidence: float


@dataclass(frozen=True)
class Flip:
    """An image that a file reads otherwise than the eager model. `png` is base64; `label` None where unknown."""

    index: int
    label: str | None
    png: str
    eager: Reading
    exported: tuple[Reading, ...]


@dataclass(frozen=True)
class Parity:
    """Verdicts; `eager` None in evidence that does not keep answers."""

    verdict: str
    data: str
    n: int
    margin_pt: float
    cells: tuple[Judged, ...]
    eager: Answers | None
    flips: tuple[Flip, ...]
    flips_left_out: int


@dataclass(frozen=True)
class Layer:
    """One quantised layer: what the file changes with this layer alone in float, and what that saves."""

    name: str
    flips: int
    kl: float
    flips_saved: int
    kl_saved: float


@dataclass(frozen=True)
class Quantised:
    """One int8 file as `quantize` made it."""

    path: str
    scheme: str
    observer: str
    judged_on: str
    ratio_to_fp32: float
    float_layers: tuple[str, ...]
    cost: dict[str, Any]
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class File:
    """One file of the release and whether it is what the manifest vouches for; `problem` is empty if it is."""

    path: str
    role: str
    size_bytes: int
    sha256: str
    problem: str


@dataclass(frozen=True)
class Facts:
    """All that a report tells of a release."""

    name: str
    made_with: str
    manifest_sha256: str
    labels: str
    model: dict[str, Any]
    provenance: tuple[tuple[str, str], ...]
    files: tuple[File, ...]
    parity: Parity | Missing
    bench: Bench | Missing
    profile: Profile | Missing
    quantised: tuple[Quantised, ...] | Missing
    commands: dict[str, str]

    @property
    def broken(self) -> list[File]:
        """Files that a reader of the release would use and that are not what the manifest vouches for."""
        return [f for f in self.files if f.problem and f.role not in ("engine", "sidecar")]

    @property
    def verdict(self) -> str:
        """What the page opens with: a changed file is a FAIL whatever was proven before it changed."""
        if self.broken:
            return FAIL
        return UNKNOWN if isinstance(self.parity, Missing) else self.parity.verdict

    @property
    def answers_missing(self) -> Missing | None:
        """Why what a model answers cannot be shown; None if it can."""
        if isinstance(self.parity, Missing):
            return self.parity
        if self.parity.eager is None:
            return Missing(
                "The parity report of this release does not keep what the models answered.", self.commands["parity"]
            )
        return None
