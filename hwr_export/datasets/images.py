"""A folder of images per class, or a CSV file of paths and labels -> datasets.

Every image passes the normalisation of `hwr-export read`, unless it is taken as it is. What cannot be used is refused
with its name, nothing is left out silently, and nothing is cached. A class is named by its character or by its code
point as in `U+0041`, for file systems that cannot hold or distinguish the character.
"""

import csv
import re
import unicodedata
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

from hwr_export.datasets.roots import PARTS, Dataset, content_sha256
from hwr_export.errors import DataError, ImageError, UsageError
from hwr_export.glyph import MIN_CONTRAST, load_grey, normalize
from hwr_export.labels import check_labels

Prepare = Literal["glyph", "as-is"]
SHAPE = (28, 28)
IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".tif", ".tiff", ".webp"}
REQUIRED, OPTIONAL = ("path", "label"), ("writer", "split")
SHOWN = 5  # problems that a refusal spells out


@dataclass(frozen=True)
class Item:
    """One labelled image file. `where` is how a refusal names it."""

    path: Path
    label: str
    part: str = "train"
    writer: str | None = None
    where: str = ""


def load_image_parts(
    path: Path, labels: str | None = None, shape: tuple[int, int] = SHAPE, prepare: Prepare = "glyph"
) -> dict[str, Dataset]:
    """Load a folder or CSV file, apart by the parts it declares; what is in none of them is `train`.

    Args:
        labels: the label set, else the sorted labels found.
        shape: height and width of the images that come out.
        prepare: `as-is` takes images that already are grey, of that shape and white on black.

    Raises:
        DataError: nothing there, or images or labels that cannot be used; the message names up to five.
    """
    items = list_folder(path) if path.is_dir() else list_csv(path)
    everything = _load(items, path, labels, shape, prepare)
    of_part = np.asarray([PARTS.index(item.part) for item in items])
    parts = {}
    for i, part in enumerate(PARTS):
        chosen = of_part == i
        if chosen.any():
            images, numbers = everything.images[chosen], everything.labels[chosen]
            writers = None if everything.writers is None else everything.writers[chosen]
            sha256 = content_sha256(images, numbers)
            parts[part] = replace(everything, split=part, images=images, labels=numbers, writers=writers, sha256=sha256)
    return parts


def load_labelled(
    path: Path, labels: str | None = None, shape: tuple[int, int] = SHAPE, prepare: Prepare = "glyph"
) -> Dataset:
    """Load a folder or CSV file whole, whatever parts it declares; arguments and refusals as `load_image_parts`."""
    return _load(list_folder(path) if path.is_dir() else list_csv(path), path, labels, shape, prepare)


def list_folder(folder: Path) -> list[Item]:
    """List the images below `CLASS/` or, where those folders exist, `train/CLASS/`, `validation/CLASS/`, `test/CLASS/`.

    Names that begin with a dot are not looked at.

    Raises:
        DataError: no folder, a folder that is no class, an image outside the class folders, or a class without one.
    """
    if not folder.is_dir():
        raise DataError(f"there is no folder {folder}")
    declared = [part for part in PARTS if (folder / part).is_dir()]
    problems = []
    items: list[Item] = []
    for part in declared or ["train"]:
        for entry in _visible(folder / part if declared else folder):
            label = _character(entry.name)
            if not entry.is_dir():
                if entry.suffix.lower() in IMAGE_SUFFIXES:
                    problems.append(f"{entry} lies in no class folder")
            elif label is None:
                problems.append(f"{entry} is named after no class (its character, or its code point as in U+0041)")
            else:
                files = [path for path in entry.rglob("*") if path.is_file() and not path.name.startswith(".")]
                items += [Item(path, label, part, where=str(path)) for path in sorted(files)]
                if not files:
                    problems.append(f"{entry} holds no image")
    if declared:
        beside = [entry for entry in _visible(folder) if entry.is_dir() and entry.name not in PARTS]
        problems += [f"{entry} lies beside the folders {', '.join(declared)}" for entry in beside]
    _refuse(problems, folder)
    if not items:
        raise DataError(f"{folder} holds no images; expected are folders such as A/ or U+0041/ with images in them")
    return items


def list_csv(path: Path) -> list[Item]:
    """List the rows of a UTF-8 CSV file with the columns path (relative to the file), label and maybe writer, split.

    Raises:
        DataError: no such file, not CSV, other columns, or rows that are not complete.
    """
    if not path.is_file():
        raise DataError(f"there is no folder or CSV file {path}")
    problems = []
    items = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = csv.DictReader(file, strict=True)
            columns = list(rows.fieldnames or [])
            unknown = [c for c in columns if c not in (*REQUIRED, *OPTIONAL)]
            if unknown or not set(REQUIRED) <= set(columns) or len(set(columns)) < len(columns):
                raise DataError(
                    f"{path} has the columns {', '.join(columns) or '(none)'}; expected are "
                    f"{', '.join(REQUIRED)} and optionally {', '.join(OPTIONAL)}, separated by commas"
                )
            for row in rows:
                where = f"line {rows.line_num}"
                # Cells beyond the header are kept under None, missing ones are None.
                if None in row or any(not row[column] for column in columns):
                    problems.append(f"{where} does not have one value for each of {', '.join(columns)}")
                    continue
                label, part = _character(row["label"]), row.get("split", "train")
                if label is None:
                    problems.append(f"{where} has the label {row['label']!r}, which is neither a character nor U+…")
                elif part not in PARTS:
                    problems.append(f"{where} has the split {part!r}; valid are {', '.join(PARTS)}")
                else:
                    file_path = path.parent / row["path"]
                    items.append(Item(file_path, label, part, row.get("writer"), f"{where}: {file_path}"))
    except (OSError, UnicodeDecodeError, csv.Error) as err:
        raise DataError(f"{path} is not a CSV file in UTF-8: {err}") from err
    _refuse(problems, path)
    if not items:
        raise DataError(f"{path} has a header but no rows")
    return items


def _load(items: Sequence[Item], path: Path, labels: str | None, shape: tuple[int, int], prepare: Prepare) -> Dataset:
    if labels is None:
        try:
            labels = check_labels("".join(sorted({item.label for item in items})))
        except UsageError as err:
            raise DataError(f"{path}: {err}") from err
    outside = [f"{i.where} has the label {i.label!r}, outside {labels!r}" for i in items if i.label not in labels]
    _refuse(outside, path)
    with ThreadPoolExecutor() as pool:  # disk reads and the decoding of large files overlap
        results = list(pool.map(lambda item: _image_or_problem(item, shape, prepare), items))
    _refuse([result for result in results if isinstance(result, str)], path)
    images = np.stack([result for result in results if not isinstance(result, str)])
    numbers = np.asarray([labels.index(item.label) for item in items], dtype=np.int64)
    writers = None
    if items[0].writer is not None:
        writers = np.unique([str(item.writer) for item in items], return_inverse=True)[1].astype(np.int32)
    kind = "folder" if path.is_dir() else "csv"
    name = f"{kind}:{path.resolve().name}"
    return Dataset(name, "all", images, numbers, writers, labels, content_sha256(images, numbers))


def _image_or_problem(item: Item, shape: tuple[int, int], prepare: Prepare) -> npt.NDArray[np.uint8] | str:
    """Return uint8 of that shape, or the sentence that says why there is none."""
    try:
        grey = load_grey(item.path)
    except ImageError as err:
        return str(err)
    if prepare == "glyph":
        image = normalize(grey, *shape)
        return f"{item.where} shows no ink" if image is None else image
    with Image.open(item.path) as file:
        mode = file.mode
    if mode != "L" or grey.shape != shape:
        height, width = grey.shape
        return (
            f"{item.where} is {mode}, {height} x {width}; `prepare: as-is` takes 8-bit grey, {shape[0]} x {shape[1]} "
            "(`prepare: glyph` takes any)"
        )
    if int(grey.max()) - int(grey.min()) < MIN_CONTRAST:
        return f"{item.where} shows no ink"
    if np.median(np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])) > 127:
        return f"{item.where} is dark on light; `prepare: as-is` takes white ink on black"
    return grey


def _character(name: str) -> str | None:
    """Return the character that `A`, `U+0041` or a decomposed form of one stands for, None where it is none."""
    code_point = re.fullmatch(r"U\+([0-9A-Fa-f]{4,6})", name)
    if code_point and int(code_point[1], 16) <= 0x10FFFF:
        name = chr(int(code_point[1], 16))
    if len(name) > 1:  # some file systems decompose accented letters
        name = unicodedata.normalize("NFC", name)
    return name if len(name) == 1 and name.isprintable() and not name.isspace() else None


def _visible(folder: Path) -> Iterator[Path]:
    return (entry for entry in sorted(folder.iterdir()) if not entry.name.startswith("."))


def _refuse(problems: Sequence[str], path: Path) -> None:
    if problems:
        more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise DataError(f"{path} cannot be used: {'; '.join(problems[:SHOWN])}{more}; correct or remove them")
