"""What stands in boxes comes out as the models were trained on it: nothing of the print, all of the pen."""

import numpy as np
import pytest

from hwr_export.release import Release
from hwr_export.runners import reader_runner
from hwr_export.scanner.form.cells import FieldCells, find_cells
from hwr_export.scanner.form.decode import text_of
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.fields import AmountField, CheckboxField, WrittenField
from hwr_export.scanner.form.layout import Layout
from hwr_export.scanner.form.registration import Registration, register
from hwr_export.spec import PROBABILITIES
from scripts.pages.hand import Hands
from scripts.pages.page import Maker, Page
from tests.conftest import ROOT
from tests.scanner.form.scans import true_homography


def texts(page: Page, layout: Layout) -> dict[str, list[str | None]]:
    """Return what stands in each box of each written field, None where it is empty."""
    found: dict[str, list[str | None]] = {}
    for place in layout.places:
        field = place.field
        if isinstance(field, WrittenField) and field.name in page.truth and field.boxes is not None:
            text: list[str | None] = [*text_of(field, page.truth[field.name])]
            empty: list[str | None] = [None] * (field.boxes - len(text))
            found[field.name] = empty + text if isinstance(field, AmountField) else text + empty
    return found


def cells_of(page: Page, layout: Layout) -> dict[str, FieldCells]:
    found = find_cells(page.grey, register(page.grey, layout), layout)
    return {place.field.name: cells for place, cells in zip(layout.places, found, strict=True)}


def test_empty_boxes_are_empty_and_others_are_not(
    straight: list[Page], scanned: list[Page], proof_layout: Layout
) -> None:
    wrong = total = 0
    for page in (*straight, *scanned):
        found = cells_of(page, proof_layout)
        for name, wanted in texts(page, proof_layout).items():
            for cell, character in zip(found[name].cells, wanted, strict=True):
                total += 1
                wrong += (cell.blank > 0.5) != (character is None)
                assert cell.image is None or (cell.image.shape, cell.image.dtype) == ((28, 28), np.uint8)
    assert total > 1000
    assert wrong <= 4


def test_digits_in_boxes_are_read_like_clean_ones(
    straight: list[Page], proof: Form, proof_layout: Layout, held_out_hands: Hands
) -> None:
    images, digits, originals = [], [], []
    for page in straight:
        found = cells_of(page, proof_layout)
        for name, wanted in texts(page, proof_layout).items():
            field = next(f for f in proof.fields if f.name == name)
            if isinstance(field, CheckboxField) or not set(field.alphabet) <= set("0123456789"):
                continue
            glyphs = iter(page.scan["glyphs"].get(name, [])[1::2])
            for cell, character in zip(found[name].cells, wanted, strict=True):
                if character is not None and cell.image is not None:
                    images.append(cell.image)
                    digits.append(int(character))
                    originals.append(held_out_hands.digits.images[next(glyphs)])
    release = Release.open(ROOT / "exported" / "digits")
    with reader_runner(release.read(release.onnx("fp32")), release.spec) as runner:
        read = runner.infer_all(np.stack(images))[PROBABILITIES].argmax(axis=1)
        known = runner.infer_all(np.stack(originals))[PROBABILITIES].argmax(axis=1)
    assert len(digits) > 250
    assert (read == digits).mean() >= (known == digits).mean() - 0.01


def test_ticks_are_seen(straight: list[Page], scanned: list[Page], proof_layout: Layout) -> None:
    for page in (*straight, *scanned):
        found = cells_of(page, proof_layout)
        for place in proof_layout.places:
            if isinstance(place.field, CheckboxField):
                ticked = found[place.field.name].ticked
                assert ticked is not None
                assert (ticked > 0.5) == (page.truth[place.field.name] == "yes"), (page.name, place.field.name)


def test_what_is_struck_out_is_noticed_and_what_is_not_is_not(
    proof: Form, held_out_hands: Hands, straight: list[Page], proof_layout: Layout
) -> None:
    maker = Maker(proof, held_out_hands, seed=5, plain=True, struck=1.0)
    seen = 0
    for number in range(1, 6):
        page = maker.make(number)
        (name,) = page.scan["struck"]
        seen += any(cell.struck for cell in cells_of(page, proof_layout)[name].cells)
    assert seen >= 4
    false = [
        name
        for page in straight
        for name, found in cells_of(page, proof_layout).items()
        if any(cell.struck for cell in found.cells)
    ]
    assert false == []


def test_a_printed_sheet_is_empty(blank_sheet: np.ndarray, proof_layout: Layout) -> None:
    registration = Registration(true_homography(blank_sheet, proof_layout), 0.0, 4, 200.0)
    for found in find_cells(blank_sheet, registration, proof_layout):
        assert not found.stray
        assert all(cell.image is None or cell.blank > 0.99 for cell in found.cells)
        assert found.ticked is None or found.ticked < 0.1


@pytest.mark.parametrize("shape", [(28, 28), (32, 24)])
def test_images_have_the_size_that_the_model_takes(
    straight: list[Page], proof_layout: Layout, shape: tuple[int, int]
) -> None:
    page = straight[0].grey
    for found in find_cells(page, register(page, proof_layout), proof_layout, shape):
        assert all(cell.image is None or cell.image.shape == shape for cell in found.cells)
