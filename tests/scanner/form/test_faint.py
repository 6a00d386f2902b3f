"""Ink much paler than the page's pen is neither lost nor believed."""

import numpy as np

from tests.scanner.form.written import Sheet, alike, digit, inked, row


def test_a_pale_character_is_shown_and_doubted() -> None:
    sheet = Sheet(row()).fill("27 35 ").write(digit(4), 34.5, 23.5, ink=0.72)
    cells = sheet.cells(noise=2.0)
    assert inked(cells)[:2] == "XX"
    pale = cells.cells[2]
    assert 0.01 < pale.blank < 0.95
    assert alike(pale.image, Sheet(row()).write(digit(4), 34.5, 23.5).cells().cells[2].image) < 16


def test_a_thin_one_on_a_faded_page_is_not_lost() -> None:
    cells = Sheet(row()).fill("27 35 ").draw((34.5, 21.5), (34.3, 25.5), mm=0.25, ink=0.3).cells(fade=0.6)
    assert cells.cells[2].blank < 0.1


def test_a_ring_of_coffee_is_not_believed() -> None:
    sheet = Sheet(row()).fill("27 35 ")
    arc = [(34.5 + 25 * np.sin(t), 45 - 22 * np.cos(t)) for t in np.linspace(-0.5, 0.5, 60)]
    cells = sheet.draw(*arc, mm=1.2, ink=0.82).cells()
    assert cells.cells[2].blank > 0.3
    assert inked(cells)[:2] == "XX"


def test_bare_paper_is_not_looked_at_twice() -> None:
    cells = Sheet(row()).fill("27").cells(noise=8.0)
    assert all(cell.image is None for cell in cells.cells[2:])
