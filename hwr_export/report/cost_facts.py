"""What a report says of time, as plain values: microseconds (`_us`), seconds (`_s`), shares as fractions.

Read by `collect_costs`; nothing here is rounded.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

PASS, FAIL, UNDECIDED, UNKNOWN = "PASS", "FAIL", "UNDECIDED", "NOT JUDGED"


class OnBackend:
    """One file on one backend, and what both are called together."""

    backend: str
    precision: str

    @property
    def name(self) -> str:
        return f"{self.precision} on {self.backend}"


@dataclass(frozen=True)
class Latency(OnBackend):
    """One file on one backend at one batch and thread count, microseconds; `samples` float64 (n,), None if not kept."""

    backend: str
    precision: str
    batch: int
    threads: int
    verdict: str | None
    n: int
    p50_us: float
    p50_ci_us: tuple[float, float] | None
    p90_us: float | None
    p90_ci_us: tuple[float, float] | None
    p90_bound_us: float | None
    p99_us: float | None
    p99_ci_us: tuple[float, float] | None
    p99_bound_us: float | None
    images_per_s: float
    speedup: float | None
    speedup_ci: tuple[float, float] | None
    steady: bool
    phases_us: dict[str, float]
    samples: npt.NDArray[np.float64] | None

    @property
    def struck(self) -> bool:
        """Whether the file was looked at by parity and did not pass."""
        return self.verdict in (FAIL, UNDECIDED)


@dataclass(frozen=True)
class Setting:
    """What was measured at one batch and thread count, the fastest first; `choices` are those of `recommend`."""

    batch: int
    threads: int
    rows: tuple[Latency, ...]
    choices: tuple[dict[str, Any], ...]
    recommended: dict[str, Any] | None


@dataclass(frozen=True)
class Start(OnBackend):
    """One file on one backend in a process of its own: medians of `n` starts."""

    backend: str
    precision: str
    n: int
    import_s: float
    load_s: float
    first_answer_s: float
    cpu_s: float
    peak_rss_mib: float


@dataclass(frozen=True)
class Watch:
    """What the machine did while one batch was measured; pairs are before and after, None what it does not tell."""

    batch: int
    threads: int
    seconds: float
    load_average: tuple[float, ...]
    clock_mhz: tuple[float | None, ...]
    stolen: float | None
    throttled: float | None
    spread: float
    noisy: tuple[str, ...]


@dataclass(frozen=True)
class Bench:
    """Latencies, and the machine they were measured on."""

    machine: dict[str, Any]
    data: dict[str, Any]
    timed: str
    absent: tuple[dict[str, str], ...]
    watches: tuple[Watch, ...]
    starts: tuple[Start, ...]
    settings: tuple[Setting, ...]

    @property
    def noise(self) -> list[str]:
        """What disturbed the measurement, a sentence each."""
        return [f"Batch {w.batch}, threads {w.threads}: {n}" for w in self.watches for n in w.noisy]


@dataclass(frozen=True)
class Peaks:
    """What the machine reaches at one thread count: arithmetic -> (GFLOP/s, by what), None without it; GB/s copied."""

    threads: int
    side: int
    rates: dict[str, tuple[float, str] | None]
    memory_gb_s: float


@dataclass(frozen=True)
class Roof:
    """One batch under the roofs: the fixed share of its time, the fractions of both roofs, and what binds."""

    batch: int
    p50_us: float
    bound: str
    fixed: float
    of_peak: float
    of_bandwidth: float


@dataclass(frozen=True)
class Scaled(OnBackend):
    """One file on one backend by batch: the time of a call as a fixed part and a part for each image."""

    backend: str
    precision: str
    threads: int
    arithmetic: str
    overhead_us: float
    us_per_image: float
    points: tuple[Roof, ...]


@dataclass(frozen=True)
class Node:
    """One node of a graph for one image; `share` of a call's time is None where it was not told apart."""

    name: str
    operator: str
    output_shape: tuple[int, ...]
    flop: int
    bytes: int
    intensity: float
    share: float | None
    waste: str


@dataclass(frozen=True)
class Graph:
    """One model file: sums for one image, and its nodes in order."""

    precision: str
    flop: int
    bytes: int
    nodes: tuple[Node, ...]

    @property
    def timed(self) -> list[Node]:
        """Nodes that take time of their own, in the graph's order."""
        return [n for n in self.nodes if n.share]


@dataclass(frozen=True)
class Profile:
    """Where the time goes, against what the machine reaches."""

    machine: dict[str, Any]
    peaks: tuple[Peaks, ...]
    scaled: tuple[Scaled, ...]
    graphs: tuple[Graph, ...]
    watches: tuple[Watch, ...]
