"""The oldest page in the spool that is not read -> its one result, in the spool.

A page that cannot be read has a result too, with an error. The result names the release that read it.
"""

import time
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

from hwr_export.device.start import Active
from hwr_export.errors import ImageError, RunnerError, ScannerError
from hwr_export.glyph import decode_grey
from hwr_export.scanner.config import ScanConfig
from hwr_export.scanner.faults import SpoolDiskError
from hwr_export.scanner.form.page_kind import FormConfig, FormPageReader
from hwr_export.scanner.grid import GridConfig, GridReader
from hwr_export.scanner.logs import log, log_unexpected
from hwr_export.scanner.page import CropReader, PageReader
from hwr_export.scanner.page import Field as PageField
from hwr_export.scanner.spool import Page, Spool

MAX_TRIES = 5
Reject = Callable[[str, str, bytes, str], None]  # source, key, image, reason


def page_reader(config: ScanConfig, active: Active) -> PageReader:
    """Return the reader of the configured kind of pages.

    Raises:
        FormError: a form's definition is none.
        ScannerError: what forms need is not installed.
    """
    if isinstance(config.page, FormConfig):
        return FormPageReader(config.page, active, config.threads)
    if isinstance(config.page, GridConfig):
        return GridReader(config.page, active.runner)
    return CropReader(active.runner)


class _Tries:
    """How many processes began to read a page: an image that takes its reader down must not do so for ever.

    On the disk only as far as the process's end is concerned: a power cut is nobody's fault.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        before = path.read_text().split() if path.exists() else []
        # What a kill cut short counts as nothing.
        self._before = (before[0], int(before[1])) if len(before) == 2 and before[1].isdecimal() else ("", 0)
        self._begun = ""

    def begin(self, page: str) -> int:
        """Return how many processes have begun a page, this one among them."""
        count = 1 + (self._before[1] if self._before[0] == page else 0)
        if self._begun != page:
            self._path.write_text(f"{page} {count}")
            self._begun = page
        return count


class Reading:
    """Reads for as long as it is asked to; one page a call."""

    def __init__(self, spool: Spool, active: Active, reader: PageReader, reject: Reject) -> None:
        self.reader = reader
        self._spool = spool
        self._active = active
        self._reject = reject
        self._tries = _Tries(spool.directory / "trying")

    def read_next(self) -> bool:
        """Read a page and store its result; False if there is none.

        Raises:
            SpoolDiskError: the result cannot be kept now; the page is as it was.
            RunnerError: the backend failed; the page is as it was.
        """
        page = self._spool.next_unread()
        if page is None:
            return False
        start_ns = time.monotonic_ns()
        tries = self._tries.begin(page.id)
        image = b""
        fields: list[PageField] = []
        error = None
        try:
            image = self._spool.image(page)
            fields = self._fields(image, tries)
        except (SpoolDiskError, RunnerError):
            raise
        except (ImageError, ScannerError) as err:
            error = str(err)
        except Exception as err:  # decoders raise what they like; the next page must not wait for this one
            error = f"the image cannot be read ({type(err).__name__})"
            log_unexpected("page-failed", err, page=page.id)
        if error is not None:
            try:
                self._reject(page.source, page.key, image, error)
            except OSError as err:  # the folder is its sender's; the result, which says the same, is not held up by it
                log("reject-failed", "warning", page=page.id, source=page.source, reason=err.strerror)
        self._spool.store_result(page, self._document(page, fields, error))
        log(
            "page-read" if error is None else "page-rejected",
            "info" if error is None else "warning",
            page=page.id,
            source=page.source,
            fields=len(fields),
            rejected_fields=sum(field.rejected for field in fields),
            duration_ms=round((time.monotonic_ns() - start_ns) / 1e6, 1),
        )
        return True

    def _fields(self, image: bytes, tries: int) -> list[PageField]:
        if tries > MAX_TRIES:
            raise ScannerError(f"the service ended {MAX_TRIES} times while it read this page; it is not tried again")
        if not image:
            raise ImageError("the image is empty, cannot be opened, or is larger than its source's max_image_mb")
        return self.reader.read(decode_grey(BytesIO(image), "the image"))

    def _document(self, page: Page, fields: list[PageField], error: str | None) -> dict[str, Any]:
        return {
            "schema": 1,
            "page": {
                "id": page.id,
                "source": page.source,
                "key": page.key,
                "sha256": page.sha256,
                "received_at": page.received_at,
            },
            "release": {
                "name": self._active.release.manifest.name,
                "version": self._active.version,
                "slot": self._active.slot,
            },
            "fields": [field.document() for field in fields],
            "error": error,
        }
