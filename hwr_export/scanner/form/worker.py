"""A unit of work and a reader -> its pages' lines for the journal; and the process that does that again and again.

Whatever a page does to the process that reads it costs that page alone: the driver (`pool`) sees it die or take long.
"""

import os
import resource
import signal
import time
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from hwr_export.errors import HwrError, ImageError, RunnerError, ScannerError
from hwr_export.scanner.form.journal import counts_of, journal_line
from hwr_export.scanner.form.results import PageResult
from hwr_export.scanner.form.units import PageDone, Reader, ReaderOpener, Unit, page_name

if TYPE_CHECKING:  # the driver has no use for OpenCV
    from hwr_export.scanner.form.pages import PageFile

MOST_PAGES = 8  # of a file that a process takes at a time; the others are for whoever is free
MOST_BYTES = 2 << 30  # of memory of a process; the largest page takes a third of it
DECODE_S = 10.0  # of processor time to open a file, and to decode a page: then the system ends the process by SIGPROF

# What a process tells the driver, with what comes with it: it can begin; a unit's file is open (its number of pages);
# a page (PageDone); the unit has ended; it cannot read at all (why).
READY, OPENED, PAGE, END, FAILED = "ready", "opened", "page", "end", "failed"


def refused_page(unit: Unit, number: int, of: int, reason: str, ms: float = 0.0) -> PageDone:
    """Return a page that is not read; `reason` is a code, a colon and a sentence."""
    return _done(PageResult("refused", reason, None, ms), unit, number, of)


def read_unit(
    reader: Reader, unit: Unit, annotated: Path | None = None, most: int | None = None
) -> Iterator[int | PageDone]:
    """Yield the number of pages of a unit's file, then the unit's pages; a file that cannot be opened is one page.

    Args:
        annotated: folder for images of the pages with the decisions on them.
        most: pages, where the unit does not say its last one.

    Raises:
        RunnerError: a model's backend failed.
        OSError: an annotated page cannot be written.
    """
    from hwr_export.scanner.form.pages import open_pages

    start_ns = time.perf_counter_ns()
    opened = False
    try:
        with ExitStack() as stack:
            with _limited():
                file = stack.enter_context(open_pages(Path(unit.path)))
            opened = True
            yield file.of
            last = unit.last or unit.first - 1 + (most or file.of)
            for number in range(unit.first, min(file.of, last) + 1):
                yield _page(reader, unit, number, file, annotated)
    except ImageError as err:
        if opened:
            raise
        yield max(1, unit.of)
        for number in range(unit.first, max(unit.first, unit.last) + 1):
            yield refused_page(unit, number, max(1, unit.of), f"unreadable: {err}", _ms(start_ns))


def serve(opener: ReaderOpener, annotated: Path | None, driver: Connection, folder: Path) -> None:
    """Read the units that the driver sends until it hangs up; what a process of the pool runs.

    Args:
        folder: where relative paths begin.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the driver is the one that ends
    warnings.filterwarnings("ignore", module="PIL")  # of damaged tags; what cannot be read is refused
    _, most = resource.getrlimit(resource.RLIMIT_DATA)
    least = MOST_BYTES if most == resource.RLIM_INFINITY else min(MOST_BYTES, most)
    resource.setrlimit(resource.RLIMIT_DATA, (least, most))
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        try:
            os.chdir(folder)
            _serve(opener, annotated, driver)
        except (HwrError, ImportError) as err:
            driver.send((FAILED, err))
        except OSError as err:
            driver.send((FAILED, ScannerError(_of_system(err))))


def _serve(opener: ReaderOpener, annotated: Path | None, driver: Connection) -> None:
    import cv2

    cv2.setNumThreads(1)
    with opener() as reader:
        driver.send((READY, None))
        while True:
            for found in read_unit(reader, driver.recv(), annotated, MOST_PAGES):
                driver.send((OPENED if isinstance(found, int) else PAGE, found))
            driver.send((END, None))


def _page(reader: Reader, unit: Unit, number: int, file: "PageFile", annotated: Path | None) -> PageDone:
    start_ns = time.perf_counter_ns()
    try:
        with _limited():
            page = file.page(number)
        result = reader.read(page.grey)
    except ImageError as err:
        return refused_page(unit, number, file.of, f"unreadable: {err}", _ms(start_ns))
    except RunnerError:
        raise
    except Exception as err:  # a fault of ours: said aloud, and no reason to leave the other pages
        traceback.print_exc()
        said = " ".join(f"{type(err).__name__}: {err}".split())[:300]
        return refused_page(unit, number, file.of, f"failed: {said}; report it", _ms(start_ns))
    if annotated is not None:
        from hwr_export.scanner.form.annotate import write_annotated

        write_annotated(page, result, annotated)
    return _done(replace(result, ms=_ms(start_ns)), unit, number, file.of)


@contextmanager
def _limited() -> Iterator[None]:
    """Bound what a file can cost: no decoder can be stopped from within, but the system stops the process."""
    signal.setitimer(signal.ITIMER_PROF, DECODE_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def _done(result: PageResult, unit: Unit, number: int, of: int) -> PageDone:
    document = result.document(page_name(unit.path, number, of), characters=True)
    refused, accepted, referred = counts_of(document)
    line = journal_line(document, unit, number, of)
    return PageDone(unit.file, number, line, refused, accepted, referred)


def _of_system(err: OSError) -> str:
    where = f"{err.filename}: " if err.filename else ""
    return f"{where}{err.strerror or err}; what was read so far is kept, run the same command again"


def _ms(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / 1e6
