"""However a page lay on the scanner, its sheet is shown straight; what is not the page that was read is said."""

import io
import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwr_export.errors import FormError, ImageError
from hwr_export.scanner.form.layout import lay_out
from hwr_export.scanner.review.pictures import (
    PAGE_WIDTHS,
    Pictures,
    homography_of,
    load_page,
    on_sheet,
    pixels_per_mm,
    window_of,
)
from hwr_export.scanner.review.referred import Referred
from hwr_export.scanner.review.results_folder import Folder, ReadPage, glance, parse_page
from tests.scanner.review.pages import Filled, draw, form, line, read


@pytest.mark.parametrize("degrees", [0.0, 3.0, 90.0, 178.0, -91.0])
def test_where_the_sheet_lies_follows_from_what_was_read(handwriting: list[np.ndarray], degrees: float) -> None:
    layout, filled = lay_out(form()), Filled(degrees=degrees, dpi=100)
    _, truth = draw(layout, filled, handwriting, np.random.default_rng(1))
    page = parse_page(as_line(read(layout, filled, truth)), "x")
    found = homography_of(page, layout)
    corners = np.array([[20, 30], [190, 30], [190, 130], [20, 130]], dtype=np.float64)
    assert np.abs(project(found, corners) - project(truth, corners)).max() < 1.0
    place = layout.places[0]
    back = on_sheet(found, page.fields[0].box)
    assert back.x <= place.area.x + 0.3
    assert back.right >= place.area.right - 0.3


def test_a_page_of_one_box_is_taken_as_it_lies() -> None:
    layout = lay_out(form())
    upright = np.diag([8.0, 8.0, 1.0])
    whole = parse_page(as_line(read(layout, Filled(), upright)), "x")
    box = whole.model_copy(update={"fields": (whole.fields[-1],)})
    row = whole.model_copy(update={"fields": (whole.fields[0],)})
    for page in (box, row):
        assert homography_of(page, layout) == pytest.approx(upright, abs=1.5)


def test_what_was_read_of_another_form_is_said() -> None:
    layout = lay_out(form())
    page = parse_page(as_line(read(layout, Filled(), np.diag([8.0, 8.0, 1.0]))), "x")
    moved = page.fields[0].model_copy(update={"box": (900, 900, 50, 50), "characters": ()})
    with pytest.raises(FormError, match="does not lie where the form has it"):
        homography_of(page.model_copy(update={"fields": (moved, *page.fields[1:])}), layout)
    renamed = page.fields[0].model_copy(update={"name": "age"})
    with pytest.raises(FormError, match="was read with another form: it has a field 'age'"):
        homography_of(page.model_copy(update={"fields": (renamed,)}), layout)


def test_a_field_is_shown_upright_though_the_page_was_upside_down(results: Path) -> None:
    folder = Folder(results)
    pictures = Pictures(folder.layout)
    first, second = pages_of(folder)
    place = next(place for place in folder.layout.places if place.field.name == "due")
    shown = []
    for page in (first, second):
        image = np.asarray(Image.open(io.BytesIO(pictures.field_png(page, place))))
        window, scale = window_of(place), pixels_per_mm(pictures.scan(page).homography, place)
        assert image.shape == (round(window.height * scale), round(window.width * scale))
        boxes = [(box.x + box.width / 2 - window.x, box.y + box.height / 2 - window.y) for box in place.boxes]
        around = [
            image[int((y - 3) * scale) : int((y + 3) * scale), int((x - 2) * scale) : int((x + 2) * scale)]
            for x, y in boxes
        ]
        shown.append([float((part < 128).mean()) for part in around])
        assert all(0.01 < share < 0.6 for share in shown[-1])
        assert np.percentile(image, 60) > 235
    assert shown[0] != shown[1]
    for width in PAGE_WIDTHS:
        page = Image.open(io.BytesIO(pictures.page_jpeg(second, width)))
        assert page.size == (width, round(297 * width / 210))


def test_an_image_that_is_not_what_was_read_is_said(results: Path) -> None:
    folder = Folder(results)
    page, _ = pages_of(folder)
    path = Path(page.path)
    assert Pictures(folder.layout).scan(page).remark == ""
    os.utime(path)
    assert Pictures(folder.layout).scan(page).remark.startswith("The file of this page has changed since it was read")
    Image.new("L", (300, 300), 255).save(path)
    with pytest.raises(
        ImageError, match=r"has 300 x 300 pixels, and the field customer was read at \(\d+, \d+\): it is"
    ):
        Pictures(folder.layout).scan(page)
    path.write_bytes(b"%PNG")
    with pytest.raises(ImageError, match="is not an image in a format"):
        Pictures(folder.layout).scan(page)
    path.unlink()
    with pytest.raises(
        ImageError, match=r"there is no image .*first\.png; run `hwr-export review` where the pages were"
    ):
        Pictures(folder.layout).scan(page)


def test_a_page_of_a_file_of_several_and_a_tree_that_was_moved(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [Image.open(results.parent / f"{name}.png") for name in ("first", "second")]
    scans = results.parent / "scans"
    scans.mkdir()
    images[0].save(scans / "both#2.tif", save_all=True, append_images=images[1:])
    result = read(lay_out(form()), Filled(), np.diag([7.87, 7.87, 1.0]))
    pages = [parse_page(line(result, scans / "both#2.tif", number, 2), "x") for number in (1, 2)]
    assert [page.path for page in pages] == [f"{scans}/both#2.tif#{number}" for number in (1, 2)]
    for page, image in zip(pages, images, strict=True):
        assert np.array_equal(load_page(page)[1], np.asarray(image))
    moved = pages[1].model_copy(update={"path": "scans/both#2.tif#2"})
    (results.parent / "elsewhere").mkdir()
    scans.rename(results.parent / "elsewhere" / "scans")
    with pytest.raises(ImageError, match=r"there is no image scans/both#2\.tif#2; run `hwr-export review` where"):
        load_page(moved)
    monkeypatch.chdir(results.parent / "elsewhere")
    assert np.array_equal(load_page(moved)[1], np.asarray(images[1]))
    assert moved.file is not None
    beyond = moved.model_copy(
        update={"path": "scans/both#2.tif#3", "file": moved.file.model_copy(update={"number": 3})}
    )
    with pytest.raises(ImageError, match="has no page 3 any more"):
        load_page(beyond)


def test_a_name_that_is_no_text(results: Path) -> None:
    odd = Path(os.fsdecode(bytes(results.parent) + b"/caf\xe9.png"))
    shutil.copyfile(results.parent / "first.png", odd)
    told = line(read(lay_out(form()), Filled(), np.diag([7.87, 7.87, 1.0])), odd)
    page = parse_page(told, "x")
    assert page.path == f"{results.parent}/caf\\udce9.png"
    assert load_page(page)[0] == odd
    assert glance(told, "x").page == page.path


def test_a_few_pages_are_kept(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Folder(results)
    pictures = Pictures(folder.layout)
    first, second = pages_of(folder)
    assert pictures.scan(first) is pictures.scan(first)
    for name in ("b", "c", "d"):
        copy = results.parent / f"{name}.png"
        copy.write_bytes(Path(first.path).read_bytes())
        pictures.scan(first.model_copy(update={"path": str(copy), "file": None}))
    assert len(pictures._kept) == 3
    assert pictures.scan(second).grey.ndim == 2


def pages_of(folder: Folder) -> list[ReadPage]:
    with closing(Referred(folder)) as found:
        return list(found.all_pages())


def as_line(result: object) -> bytes:
    return json.dumps(result.document("x.png", characters=True)).encode()


def project(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    found = np.c_[points, np.ones(len(points))] @ homography.T
    return found[:, :2] / found[:, 2:]


def test_a_line_that_is_no_page() -> None:
    with pytest.raises(FormError, match=r"line 3 is no page of results: path: Field required; read the pages again"):
        parse_page(b'{"status": "read"}', "line 3")
    assert isinstance(parse_page(b'{"path": "a", "status": "refused", "later": 1}', "x"), ReadPage)
