"""A builder's nested phases -> one line and one fraction of the whole build, which never goes back.

Builders announce more steps than they take, and end phases early: the fraction is a measure, no promise.
"""

from dataclasses import dataclass


@dataclass
class _Phase:
    parent: str | None
    steps: int
    done: int = 0


class Phases:
    """Follows the phases of one build by their names."""

    def __init__(self) -> None:
        self._open: dict[str, _Phase] = {}  # in the order of their start: the outermost first
        self.fraction = 0.0
        self.label = ""

    def start(self, name: str, parent: str | None, steps: int) -> None:
        self._open[name] = _Phase(parent, max(1, steps))
        self._tell()

    def step(self, name: str, step: int) -> None:
        """Note a finished step, counted from 0."""
        if phase := self._open.get(name):
            phase.done = min(step + 1, phase.steps)
            self._measure()

    def finish(self, name: str) -> None:
        if phase := self._open.get(name):
            phase.done = phase.steps
            self._measure()
            del self._open[name]
            self._tell()

    def _tell(self) -> None:
        """Name the outermost phase and the innermost of those that run; after the last one, that."""
        if names := list(self._open):
            self.label = " > ".join(dict.fromkeys((names[0], names[-1])))

    def _measure(self) -> None:
        parts = [self._part(name) for name, phase in self._open.items() if phase.parent not in self._open]
        self.fraction = max(self.fraction, *parts)

    def _part(self, name: str) -> float:
        """Return how much of a phase is done, with the open phases inside it as part of its current step."""
        phase = self._open[name]
        inside = max((self._part(n) for n, p in self._open.items() if p.parent == name), default=0.0)
        return min(1.0, (phase.done + inside) / phase.steps)
