"""A pipe -> pages: the names of image files, one a line, or one image whose bytes are all there is.

A name is repeated on stdout once the spool has its page: then the file may go. A name that stands for the same file as
before, unchanged, or the same image's bytes, is the same page: it is acknowledged again and read once.
"""

import os
import selectors
import sys
import threading
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Literal

from pydantic import Field

from hwr_export.errors import UsageError
from hwr_export.files import sha256_bytes
from hwr_export.scanner.sources import Arrived, Source
from hwr_export.scanner.sources.files import DEFAULT_SUFFIX, read_whole, suffix_of
from hwr_export.spec import Strict

TICK_S = 0.2
BLOCK = 1 << 16


class StdinConfig(Strict):
    """What is piped into the service; it ends, all read and delivered, when the pipe does and nothing else is left."""

    kind: Literal["stdin"]
    name: str = Field("stdin", pattern=r"^[a-z0-9][a-z0-9-]{0,30}$", description="Name in results and logs; unique.")
    content: Literal["names", "image"] = Field(
        "names", description="`names`: a file name a line, each one page. `image`: the bytes of one image."
    )
    max_image_mb: int = Field(64, ge=1, le=1024, description="A larger image is not read; its result says so.")


class StdinSource(Source):
    """Pages of file descriptor 0."""

    def __init__(self, config: StdinConfig, fd: int = 0) -> None:
        super().__init__(config.name)
        self._config = config
        self._fd = fd
        self._limit = config.max_image_mb << 20

    def pages(self, stop: threading.Event) -> Generator[Arrived, None, None]:
        yield from self._image(stop) if self._config.content == "image" else self._names(stop)
        if not stop.is_set():
            self.report("ended")

    def _names(self, stop: threading.Event) -> Iterator[Arrived]:
        rest = b""
        for block in self._blocks(stop):
            *lines, rest = (rest + block).split(b"\n")
            for line in lines:
                yield from self._named(line)
                if stop.is_set():
                    return
        if rest and not stop.is_set():
            yield from self._named(rest)

    def _named(self, line: bytes) -> Iterator[Arrived]:
        name = os.fsdecode(line.removesuffix(b"\r"))
        if not name:
            return
        shown = os.fsencode(name).decode("utf-8", "replace")
        try:
            file = read_whole(Path(name), self._limit)
        except OSError as err:
            # Its name alone makes the page: whoever asked gets a result, which says that there was no image.
            self.report("unreadable-file", f"{shown}: {err.strerror}")
            file = None
        image, key = (b"", shown) if file is None else (file.image, file.identity.key(shown))
        self.report("receiving")
        yield Arrived(self.name, key, image, suffix_of(name), lambda: _say(name))
        self.report("waiting")

    def _image(self, stop: threading.Event) -> Iterator[Arrived]:
        image = bytearray()
        for block in self._blocks(stop):
            if len(image) <= self._limit:
                image += block
        if stop.is_set() or not image:
            return
        whole = bytes(image) if len(image) <= self._limit else b""
        yield Arrived(self.name, sha256_bytes(bytes(image)), whole, DEFAULT_SUFFIX, lambda: None)

    def _blocks(self, stop: threading.Event) -> Iterator[bytes]:
        """Yield what comes through the pipe, until it ends or `stop` is set."""
        self.report("waiting")
        with selectors.DefaultSelector() as selector:
            try:
                selector.register(self._fd, selectors.EVENT_READ)
                pollable = True
            except PermissionError:  # a regular file: it never makes anybody wait
                pollable = False
            except ValueError as err:
                raise UsageError("the source `stdin` needs something on its standard input; it is closed") from err
            while not stop.is_set():
                if pollable and not selector.select(TICK_S):
                    continue
                block = os.read(self._fd, BLOCK)
                if not block:
                    return
                yield block


def _say(name: str) -> None:
    sys.stdout.buffer.write(os.fsencode(name) + b"\n")
    sys.stdout.buffer.flush()
