"""TensorRT's log, kept instead of printed: the reasons that its calls answer with None or False for.

A process has one: while one TensorRT object lives, TensorRT ignores every other logger that it is given.
"""

from functools import cache
from types import ModuleType
from typing import Any

GIST_CHARACTERS = 600


@cache
def logger(trt: ModuleType) -> Any:
    """Return the process's logger of a product; `errors` are its error lines since they were last cleared."""

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(" ".join(message.split()))

        def gist(self) -> str:
            return "; ".join(self.errors[:2])[:GIST_CHARACTERS]

    return Logger()
