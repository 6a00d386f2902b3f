"""What TensorRT calls while it works: a progress monitor that can stop the build.

Both products take classes derived from their own; nothing here may raise, since an exception would tear through C++.
"""

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

from hwr_export.engine.progress import Phases

Progress = Callable[[str, int, int], None]  # phase, thousandths of the build that are done, 1000
THOUSAND = 1000


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
