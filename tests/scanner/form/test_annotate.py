"""Decisions on a page: seen by everybody, and covering nothing that was written."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwr_export.scanner.form.annotate import ACCEPTED, REFERRED, annotated, caption_of, write_annotated
from hwr_export.scanner.form.pages import PageImage
from hwr_export.scanner.form.results import FieldResult, PageResult

GREY = np.full((1754, 1240), 250, dtype=np.uint8)
FIELDS = (
    FieldResult("amount", "1234.50", 0.9987, True, (), (200, 300, 400, 60)),
    FieldResult("iban", "", 0.4, False, ("doubtful", "outside-box"), (200, 500, 700, 60)),
    FieldResult("edge", "A" * 30, 0.4, False, ("doubtful",), (1100, 8, 100, 60)),
    FieldResult("close", "12", 0.9, True, (), (640, 300, 100, 60)),
)


def of(image: Image.Image, colour: tuple[int, int, int], box: tuple[int, int, int, int]) -> float:
    """The share of a box's pixels of a colour."""
    x, y, width, height = box
    part = np.asarray(image)[max(0, y) : y + height, max(0, x) : x + width]
    return float((part == colour).all(axis=2).mean())


def test_what_is_decided_is_drawn() -> None:
    image = annotated(GREY, PageResult("read", "", 0.3, 1.0, FIELDS))
    for field in FIELDS:
        mine, other = (ACCEPTED, REFERRED) if field.accepted else (REFERRED, ACCEPTED)
        x, y, width, height = field.box
        assert (np.asarray(image)[y : y + height, x : x + width] == 250).all()  # what is written stays as it is
        around = (x - 6, y - 6, width + 12, height + 12)
        assert of(image, mine, around) > 0.01
        assert of(image, other, around) == 0
    solid = np.asarray(image)[362:366, 200:600]
    dashed = np.asarray(image)[562:566, 200:900]
    assert (solid == ACCEPTED).all(axis=2).any(axis=0).mean() > 0.95
    assert 0.4 < (dashed == REFERRED).all(axis=2).any(axis=0).mean() < 0.7  # lines that colours are not needed for


def test_captions_say_what_and_why() -> None:
    assert [caption_of(field) for field in FIELDS[:2]] == [
        "amount: 1234.50  99.9 %",
        "iban: (empty)  40.0 %  doubtful, outside-box",
    ]


def test_captions_lie_within_the_page_and_not_on_each_other() -> None:
    crowded = tuple(
        FieldResult(
            f"field-{i}", "12345678", 0.5, bool(i % 2), (), (100 + 260 * (i % 4), 200 + 130 * (i // 4), 200, 50)
        )
        for i in range(16)
    )
    image = annotated(GREY, PageResult("read", "", 0.3, 1.0, crowded))
    for field in crowded:
        x, y, width, height = field.box
        assert (np.asarray(image)[y : y + height, x : x + width] == 250).all()


def test_a_refused_page_says_why_above_it() -> None:
    image = annotated(GREY, PageResult("refused", "blank-page: nothing is on it " * 9, None, 1.0))
    band = image.height - GREY.shape[0]
    assert 60 < band < 300
    assert of(image, REFERRED, (0, 0, image.width, band)) > 0.5
    assert (np.asarray(image)[band + 10 : -10, 10:-10] == 250).all()


@pytest.mark.parametrize("shape", [(12, 12), (40, 3000)])
def test_pages_of_any_shape(shape: tuple[int, int]) -> None:
    tiny = replace(FIELDS[0], box=(1, 1, 3, 3))
    for result in (PageResult("read", "", 0.3, 1.0, (tiny,)), PageResult("refused", "too-small: it is", None, 1.0)):
        assert annotated(np.zeros(shape, np.uint8), result).width == shape[1]


def test_names_follow_those_of_the_pages(tmp_path: Path) -> None:
    result = PageResult("read", "", 0.3, 1.0, FIELDS[:1])
    for path, number, of_, name in (
        (Path("/a/b.png"), 1, 1, "a/b.png.jpg"),
        (Path("../a/b.tif"), 7, 12, "up/a/b.tif-07.jpg"),
    ):
        written = write_annotated(PageImage(path, number, of_, GREY, None), result, tmp_path)
        assert written == tmp_path / name
        with Image.open(written) as image:
            assert (image.format, image.mode, image.size) == ("JPEG", "RGB", (1240, 1754))
    assert not list(tmp_path.rglob("*.part"))


def test_what_cannot_be_stored_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, path: Path, *_: object, **__: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write_annotated(PageImage(Path("a.png"), 1, 1, GREY, None), PageResult("read", "", 0, 0), tmp_path)
    assert list(tmp_path.iterdir()) == []
