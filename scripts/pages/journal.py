"""A folder that long work fills line by line, and that the same work can go on with after it was stopped."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hwr_export.errors import FormError
from hwr_export.files import json_bytes, write_atomic

Records = dict[int, dict[str, Any]]


def begin(folder: Path, made: str, lines: str, settings: Mapping[str, Any], files: Mapping[str, bytes]) -> Records:
    """Return what a folder holds already, by number; make it, with its first files, where it is not there.

    Args:
        made: name of the file that says what fills the folder and whether it is finished.
        lines: name of the file of records, one JSON a line, each with its `number`.

    Raises:
        FormError: the folder holds something else.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.iterdir()):
        for name, data in files.items():
            write_atomic(folder / name, data)
        write_atomic(folder / made, finished(settings, False))
        return {}
    try:
        there = json.loads((folder / made).read_bytes())
    except (OSError, ValueError) as err:
        raise FormError(f"{folder} is not empty and holds no pages of this command; name another folder") from err
    if there.pop("finished", None) is not False:
        raise FormError(f"{folder} holds finished pages; name another folder, or remove it")
    if there != settings:
        changed = sorted(key for key in {*there, *settings} if there.get(key) != settings.get(key))
        raise FormError(
            f"{folder} holds unfinished pages of another command ({', '.join(changed)} differ); "
            "repeat that one to go on, or name another folder"
        )
    path = folder / lines
    written = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = [line for line in written if line.endswith(b"\n")]
    if whole != written:
        # The last line is torn: its page is made again.
        write_atomic(path, b"".join(whole))
    records = [json.loads(line) for line in whole]
    return {record.pop("number"): record for record in records}


def line(number: int, record: Mapping[str, Any]) -> str:
    """Return a record as its line."""
    return json.dumps({"number": number, **record}) + "\n"


def finished(settings: Mapping[str, Any], done: bool) -> bytes:
    """Return the document that says what fills a folder."""
    return json_bytes({**settings, "finished": done})
