"""Numbers of pages -> what a task makes of each, in their order, by as many processes as one likes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import cv2

from hwr_export.files import write_atomic
from scripts.pages.page import Maker

T = TypeVar("T")
_here: dict[str, Any] = {}  # what `begin` prepared in this process


def in_processes(
    jobs: int, numbers: Sequence[int], begin: Callable[..., None], arguments: tuple[Any, ...], task: Callable[[int], T]
) -> Iterator[T]:
    """Yield what a task returns for each number; with one job in this process, else in new ones.

    Args:
        begin: called with `arguments` once in every process before its first task.
    """
    if not numbers:
        return
    if jobs == 1 or len(numbers) == 1:
        begin(*arguments)
        yield from map(task, numbers)
        return
    # Spawned: OpenCV and the renderer of PDFs have threads, which a fork would take half of.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(min(jobs, len(numbers)), context, initializer=begin, initargs=arguments)
    try:
        yield from pool.map(task, numbers)
    finally:
        pool.shutdown(cancel_futures=True)


def begin_writing(folder: Path, arguments: tuple[Any, ...]) -> None:
    """Prepare to write pages into a folder; `arguments` are those of `Maker`."""
    cv2.setNumThreads(1)
    _here["maker"], _here["folder"] = Maker(*arguments), folder


def write_page(number: int) -> dict[str, Any]:
    """Make a page, write its image, and return its record."""
    page = _here["maker"].make(number)
    write_atomic(_here["folder"] / page.name, page.png())
    return {"name": page.name, "truth": page.truth, "scan": page.scan}
