"""A scanner that SANE knows, through the program `scanimage` -> pages.

`scanimage` stops before every page and waits for a line; it gets one only after the spool has the page before, so that
the feeder never runs ahead of the disk. Each page is a file in the source's own folder until it is acknowledged: what a
crash leaves there arrives again, under the same key. A fault is a state, and the next try ends it.
"""

import hashlib
import os
import re
import threading
import time
import uuid
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator
from typing_extensions import Self

from hwr_export.files import sync_directory
from hwr_export.scanner.sources import Arrived, Source
from hwr_export.scanner.sources.files import Identity, identify, read_whole
from hwr_export.scanner.sources.scanimage import FaultError, Scanimage
from hwr_export.spec import Strict

SUFFIX = ".pnm"
MAX_BYTES = 256 << 20
TICK_S = 0.2


class SaneConfig(Strict):
    """A scanner."""

    kind: Literal["sane"]
    name: str = Field("scanner", pattern=r"^[a-z0-9][a-z0-9-]{0,30}$", description="Name in results and logs; unique.")
    device: str = Field(min_length=1, description="Name of the device as `scanimage -L` prints it.")
    mode: Literal["feeder", "flatbed"] = Field(
        "feeder",
        description="`feeder`: scans whenever paper lies in it. `flatbed`: scans one page for every file put into "
        "`requests`.",
    )
    requests: Path | None = Field(
        None,
        description="Folder for `flatbed`: each file in it, whatever its content, asks for one page (a button's script "
        "makes one); it is deleted when the spool has the page.",
    )
    options: dict[str, str] = Field(
        {},
        description="Options of the device as `scanimage --help -d DEVICE` lists them, without dashes: "
        '`{ resolution = "300", mode = "Gray", source = "ADF" }`.',
    )
    retry_s: float = Field(2.0, gt=0, description="Seconds until an empty feeder or a fault is tried again.")
    page_timeout_s: float = Field(120.0, gt=0, description="Seconds for one page, after which the scanner has hung.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.mode == "flatbed") != (self.requests is not None):
            raise ValueError("`requests` belongs to mode `flatbed`, and to no other: give both or neither")
        if wrong := [name for name in self.options if not re.fullmatch(r"[a-zA-Z][a-zA-Z0-9-]*", name)]:
            raise ValueError(f"{wrong[0]!r} is no option's name: write it without dashes")
        return self


class SaneSource(Source):
    """Pages of one device. `work`: folder of its own for pages that are not acknowledged yet."""

    def __init__(self, config: SaneConfig, work: Path) -> None:
        super().__init__(config.name)
        self._config = config
        self._work = work

    def pages(self, stop: threading.Event) -> Generator[Arrived, None, None]:
        self._work.mkdir(parents=True, exist_ok=True)
        for part in self._work.glob("*.part"):  # of runs that were cut off; one that goes on is young
            if time.time() - part.stat().st_mtime > self._config.page_timeout_s:
                part.unlink(missing_ok=True)
        scan = self._fed if self._config.mode == "feeder" else self._requested
        while not stop.is_set():
            try:
                yield from self._finished(stop)
                yield from scan(stop)
            except FaultError as fault:
                self.report(fault.state, fault.detail)
                stop.wait(self._config.retry_s)

    def _fed(self, stop: threading.Event) -> Iterator[Arrived]:
        """Scan until the feeder is empty."""
        with self._scanimage(uuid.uuid4().hex) as scanimage:
            while not stop.is_set() and scanimage.next_page():
                self.report("receiving")
                yield from self._finished(stop)
        if not stop.is_set():
            raise FaultError("no-paper")

    def _requested(self, stop: threading.Event) -> Iterator[Arrived]:
        """Scan one page for each request."""
        requests = self._requests()
        if not requests:
            self.report("waiting")
            stop.wait(TICK_S)
        for stem in requests:
            if stop.is_set():
                return
            with self._scanimage(stem, pages=1) as scanimage:
                if not scanimage.next_page():
                    raise FaultError("fault", "the scanner ended without a page")
            self.report("receiving")
            yield from self._finished(stop)

    def _requests(self) -> dict[str, Path]:
        """Return what is asked for, the oldest first, by what its page is called."""
        folder = self._config.requests
        try:
            paths = list(folder.iterdir()) if folder else []
        except OSError as err:
            raise FaultError("no-folder", f"{folder}: {err.strerror}") from err
        found = [(identity, path) for path in paths if (identity := identify(path)) is not None]
        return {_stem(path, identity): path for identity, path in sorted(found, key=lambda f: (f[0].changed_ns, f[1]))}

    def _scanimage(self, stem: str, pages: int | None = None) -> Scanimage:
        # A try has a name of its own: one that outlived its service still writes to its own file.
        prefix = f"{stem}_{uuid.uuid4().hex[:8]}_"
        config = self._config
        return Scanimage(config.device, config.options, self._work, prefix, SUFFIX, config.page_timeout_s, pages)

    def _finished(self, stop: threading.Event) -> Iterator[Arrived]:
        """Yield the pages that lie in the folder whole: `scanimage` gives a page its name when it is."""
        found = [(_stem_and_page(path), path) for path in self._work.glob(f"*{SUFFIX}")]
        for (stem, number), path in sorted(found, key=lambda pair: (pair[1].stat().st_mtime_ns, pair[0])):
            request = None
            if self._config.mode == "flatbed" and (request := self._requests().get(stem)) is None:
                # Its request was met by another try, and has its page.
                path.unlink()
                continue
            if (file := read_whole(path, MAX_BYTES)) is None:
                continue
            yield Arrived(self.name, f"{stem}-{number}", file.image, SUFFIX, self._acknowledge(path, request))
            if stop.is_set():
                return

    def _acknowledge(self, path: Path, request: Path | None) -> Callable[[], None]:
        def acknowledge() -> None:
            # The request goes first, for good: what is left of its pages then belongs to no request.
            if request is not None:
                request.unlink(missing_ok=True)
                sync_directory(request.parent)
            path.unlink()
            sync_directory(self._work)

        return acknowledge


def _stem(request: Path, identity: Identity) -> str:
    """Return what the page of a request is called: its name as far as that is plain, and which file it is."""
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", os.fsencode(request.name).decode("utf-8", "replace"))[:80]
    return f"{name}-{hashlib.sha256(identity.key(request.name).encode(errors='replace')).hexdigest()[:16]}"


def _stem_and_page(path: Path) -> tuple[str, int]:
    stem, _, number = path.name.removesuffix(SUFFIX).rsplit("_", 2)
    return stem, int(number)
