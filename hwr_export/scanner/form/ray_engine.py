"""Units of work -> pages read by the machines of a Ray cluster, as a pipeline of Ray Data; results come to the driver.

An actor holds a process of the pool that also reads locally, so a page that kills its reader, or takes too long, comes
out as it does there. An actor or machine that dies is Ray's affair: its units are read again.
"""

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from hwr_export import errors
from hwr_export.errors import HwrError
from hwr_export.scanner.form.batch import Engine
from hwr_export.scanner.form.pool import PAGE_S, Pool
from hwr_export.scanner.form.units import PageDone, ReaderOpener, Unit

UNITS = 8  # that an actor takes at a time, and whose pages are read again if it dies
SLICE = 2_000  # units of a pipeline for each of its actors; then another one begins
LOCAL_STORE_BYTES = 200_000_000  # of a cluster of our own: what passes through are lines of text

Columns = dict[str, "np.ndarray[Any, Any]"]


@contextmanager
def ray_engine(
    opener: ReaderOpener, jobs: int | None = None, page_s: float = PAGE_S, annotated: Path | None = None
) -> Iterator[Engine]:
    """Yield an engine on the cluster that `RAY_ADDRESS` names, else on one of this machine, which ends with the block.

    Its machines see the releases and pages under the same paths.

    Args:
        jobs: actors, each with a processor; else one a processor.
        page_s: seconds for one page.
        annotated: folder for images of the pages with the decisions on them.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"  # it tells nobody what it is used for
    import ray

    ours = not ray.is_initialized()
    if ours:
        _start(ray, jobs)
    try:
        count = jobs or max(1, int(ray.cluster_resources().get("CPU", 1)))

        def read(units: Iterator[Unit]) -> Iterator[list[PageDone]]:
            while some := list(islice(units, SLICE * count)):
                yield from _pages(some, count, (opener, page_s, annotated, Path.cwd()))

        yield read
    finally:
        if ours:
            ray.shutdown()


class Actor:
    """One reader on one machine of the cluster."""

    def __init__(self, opener: ReaderOpener, page_s: float, annotated: Path | None, folder: Path) -> None:
        with suppress(OSError):  # it is not on this machine: absolute paths may be
            os.chdir(folder)
        self._pool = Pool(opener, 1, page_s, annotated)

    def __call__(self, units: Columns) -> Iterator[dict[str, list[Any]]]:
        """Yield the pages of some units; what ends the run comes as a page of its own."""
        rows = (dict(zip(units, values, strict=True)) for values in zip(*units.values(), strict=True))
        try:
            for pages in self._pool.read(_unit(row) for row in rows):
                yield _columns([asdict(page) | {"error": "", "message": ""} for page in pages])
        except (HwrError, ImportError) as err:
            nothing = asdict(PageDone(-1, 0, b"", refused=True))
            kind = type(err).__name__ if isinstance(err, HwrError) else "UsageError"
            yield _columns([nothing | {"error": kind, "message": str(err)}])


def _start(ray: Any, jobs: int | None) -> None:
    address = os.environ.get("RAY_ADDRESS")
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
    if address:
        quiet.pop("include_dashboard")
        ray.init(address=address, **quiet)
    else:
        ray.init(
            address="local", num_cpus=jobs, object_store_memory=LOCAL_STORE_BYTES, _node_ip_address="127.0.0.1", **quiet
        )


def _pages(units: list[Unit], jobs: int, arguments: tuple[Any, ...]) -> Iterator[list[PageDone]]:
    import ray.data

    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Names of files may be of any bytes, and Arrow's strings are UTF-8.
    rows = [asdict(unit) | {"path": os.fsencode(unit.path)} for unit in units]
    blocks = min(len(rows), max(2 * jobs, -(-len(rows) // UNITS)))
    done = ray.data.from_items(rows, override_num_blocks=blocks).map_batches(
        Actor,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=min(jobs, blocks)),
        num_cpus=1,
    )
    for found in done.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        pages = []
        for values in zip(*found.values(), strict=True):
            row = dict(zip(found, values, strict=True))
            if row["error"]:
                raise getattr(errors, str(row["error"]))(str(row["message"]))
            counts = {name: int(row[name]) for name in ("file", "number", "accepted", "referred")}
            pages.append(PageDone(line=bytes(row["line"]), refused=bool(row["refused"]), **counts))
        yield pages


def _unit(row: dict[str, Any]) -> Unit:
    numbers = {name: int(value) for name, value in row.items() if name != "path"}
    return Unit(path=os.fsdecode(bytes(row["path"])), **numbers)


def _columns(rows: list[dict[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}
