"""Pages of the proof's form, with handwriting of the validation part, scanned virtually; made once a session."""

import numpy as np
import pytest

from hwr_export.scanner.form.definition import Form, load_form
from hwr_export.scanner.form.layout import Layout, lay_out
from hwr_export.scanner.form.sheet import sheet_pdf
from scripts.pages.hand import Hands, load_hands
from scripts.pages.page import Maker, Page, print_sheet
from tests.conftest import ROOT


@pytest.fixture(scope="session")
def proof() -> Form:
    return load_form(ROOT / "docs" / "examples" / "proof.yaml")


@pytest.fixture(scope="session")
def proof_layout(proof: Form) -> Layout:
    return lay_out(proof)


@pytest.fixture(scope="session")
def held_out_hands() -> Hands:
    return load_hands("validation", letters=True)


@pytest.fixture(scope="session")
def scanned(proof: Form, held_out_hands: Hands) -> list[Page]:
    """Eight pages, some harshly distorted."""
    maker = Maker(proof, held_out_hands, seed=11)
    return [maker.make(number) for number in range(1, 9)]


@pytest.fixture(scope="session")
def straight(proof: Form, held_out_hands: Hands) -> list[Page]:
    """Three pages as they were written, at 300 dpi."""
    maker = Maker(proof, held_out_hands, seed=12, plain=True)
    return [maker.make(number) for number in range(1, 4)]


@pytest.fixture(scope="session")
def blank_sheet(proof: Form, proof_layout: Layout) -> np.ndarray:
    """The printed sheet, nothing written on it, 200 dpi, uint8 (H, W)."""
    return print_sheet(sheet_pdf(proof), 200, proof_layout.width, proof_layout.height).grey
