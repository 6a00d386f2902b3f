"""What TensorRT calls while it works: a logger that keeps errors, a progress monitor that can stop the build.

Both products take classes derived from their own; nothing here may raise, since an exception would tear through C++.
"""

import sys
import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hwr_export.engine.options import LogLevel
from hwr_export.engine.progress import Phases

Progress = Callable[[str, int, int], None]  # phase, thousandths of the build that are done, 1000
THOUSAND = 1000
NO_DRIVER = "cudaError 35"  # follows every error on a machine without a GPU


def new_logger(trt: ModuleType, level: LogLevel | None = None) -> Any:
    """Return a logger that keeps errors and prints nothing, or to stderr what is at least of a level."""
    levels = ("internal", "error", "warning", "info", "verbose")
    kinds = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING, trt.ILogger.INFO, trt.ILogger.VERBOSE)
    shown = kinds[: levels.index(level) + 1] if level else ()

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            line = " ".join(message.split())
            if severity in kinds[:2]:
                self.errors.append(line)
            if severity in shown:
                sys.stderr.write(f"[{trt.__name__}] {levels[kinds.index(severity)]}: {line}\n")

        def gist(self) -> str:
            """Return its first errors, without those that only say that there is no GPU if there are others."""
            told = [e for e in self.errors if NO_DRIVER not in e] or self.errors[:1]
            return "; ".join(told[:2])[:600] or "it gave no reason"

    return Logger()


def new_monitor(trt: ModuleType, progress: Progress) -> Any:
    """Return a monitor that reports the whole build's progress and stops it when `cancelled` is set.

    What `progress` raises stops the build too, and is kept as `failure`.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc, name-defined]
        """May be called from several of the builder's threads."""

        def __init__(self) -> None:
            trt.IProgressMonitor.__init__(self)
            self.cancelled = False
            self.failure: BaseException | None = None
            self._phases = Phases()
            self._lock = threading.Lock()

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._note(self._phases.start, phase_name, parent_phase, num_steps)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._note(self._phases.step, phase_name, step)
            return not self.cancelled

        def phase_finish(self, phase_name: str) -> None:
            self._note(self._phases.finish, phase_name)

        def _note(self, change: Callable[..., None], *what: Any) -> None:
            with self._lock:
                if self.cancelled:  # phases end then, and are not done
                    return
                try:
                    change(*what)
                    progress(self._phases.label, round(THOUSAND * self._phases.fraction), THOUSAND)
                except BaseException as err:
                    self.failure = err
                    self.cancelled = True

    return Monitor()
