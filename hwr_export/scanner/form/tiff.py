"""The directories of a TIFF or BigTIFF -> which of its images are pages; nothing is decoded.

Pillow counts pages too, but ends where a file was cut off as if it had no more: a page must not be lost without a word.
"""

import struct
from typing import IO

_SUBFILE_TYPE, _REDUCED = 254, 1  # TIFF 6.0: a smaller version of another image
_BIG = 43
_SHORT = 3


def tiff_pages(file: IO[bytes], most: int) -> list[int | None]:
    """Return the numbers of the images that are pages, from 0 on; one at least, and not more than `most` + 1.

    None stands at the end where a directory is not whole: what it and others after it had is not known.

    Args:
        file: at any place; it is put back there.
    """
    before = file.tell()
    try:
        return _pages(file, most) or [0]
    finally:
        file.seek(before)


def _pages(file: IO[bytes], most: int) -> list[int | None]:
    file.seek(0)
    head = file.read(16)
    order = "<" if head[:2] == b"II" else ">"
    big = head[2:4] == struct.pack(f"{order}H", _BIG)
    count_format, entry_bytes, offset_format = ("Q", 20, "Q") if big else ("H", 12, "I")
    try:
        (offset,) = struct.unpack_from(f"{order}{offset_format}", head, 8 if big else 4)
        found: list[int | None] = []
        met: set[int] = set()
        while offset and offset not in met and len(met) <= most:
            met.add(offset)
            file.seek(offset)
            (count,) = struct.unpack(f"{order}{count_format}", file.read(struct.calcsize(count_format)))
            if count > 65_535:
                return [*found, None]
            entries = file.read(count * entry_bytes)
            (offset,) = struct.unpack(f"{order}{offset_format}", file.read(struct.calcsize(offset_format)))
            if not _is_reduced(entries, entry_bytes, order):
                found.append(len(met) - 1)
    except (struct.error, OSError, OverflowError, ValueError):  # the file ends, or there is no such place
        return [*found, None]
    return found


def _is_reduced(entries: bytes, size: int, order: str) -> bool:
    for at in range(0, len(entries), size):
        tag, kind = struct.unpack_from(f"{order}HH", entries, at)
        if tag == _SUBFILE_TYPE:
            value = entries[at + size - (8 if size == 20 else 4) :]
            return bool(struct.unpack_from(f"{order}{'H' if kind == _SHORT else 'I'}", value)[0] & _REDUCED)
    return False
