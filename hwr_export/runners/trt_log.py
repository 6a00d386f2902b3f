"""TensorRT's log: its errors kept, since they are the reasons that its calls answer with None or False for.

A process has one: while one TensorRT object lives, TensorRT ignores every other logger that it is given.
"""

import sys
from types import ModuleType
from typing import Any

LEVELS = ("internal", "error", "warning", "info", "verbose")
NO_DRIVER = "cudaError 35"  # follows every error on a machine without a GPU
GIST_CHARACTERS = 600
_LOGGERS: dict[Any, Any] = {}  # a product's class of loggers -> its one logger


def use_logger(trt: ModuleType, level: str | None = None) -> Any:
    """Return the process's logger of a product, with nothing kept yet.

    Args:
        level: what is at least of it also goes to stderr; nothing of None.
    """
    if trt.ILogger not in _LOGGERS:
        _LOGGERS[trt.ILogger] = _new_logger(trt)
    logger = _LOGGERS[trt.ILogger]
    logger.errors.clear()
    logger.shown, logger.prefix = (LEVELS.index(level), f"[{trt.__name__}] ") if level else (-1, "")
    return logger


def _new_logger(trt: ModuleType) -> Any:
    kinds = (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR, trt.ILogger.WARNING, trt.ILogger.INFO, trt.ILogger.VERBOSE)

    class Logger(trt.ILogger):  # type: ignore[misc, name-defined]
        """Nothing here may raise: an exception would tear through C++."""

        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: list[str] = []
            self.shown, self.prefix = -1, ""

        def log(self, severity: Any, message: str) -> None:
            line, rank = " ".join(message.split()), kinds.index(severity)
            if rank <= LEVELS.index("error"):
                self.errors.append(line)
            if rank <= self.shown:
                sys.stderr.write(f"{self.prefix}{LEVELS[rank]}: {line}\n")

        def gist(self) -> str:
            """Return its first errors, without those that only say that there is no GPU if there are others."""
            told = [e for e in self.errors if NO_DRIVER not in e] or self.errors[:1]
            return "; ".join(told[:2])[:GIST_CHARACTERS] or "it gave no reason"

    return Logger()
