"""Pages to fields, with the committed releases: right or referred, and nothing accepted that no threshold allows."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hwr_export.errors import FormError
from hwr_export.release import Release
from hwr_export.scanner.form.acceptance import Acceptance, Threshold
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.reader import FormReader, Model, open_form_reader
from hwr_export.scanner.form.results import REASONS, document
from scripts.pages.page import Maker, Page
from tests.conftest import ROOT


def accepting(family: str, least: float) -> Acceptance:
    known = {"pages": 1, "fields": 1, "accepted": 1, "wrong": 0, "wrong_pages": 0, "upper_bound": 0.5}
    return Acceptance(thresholds=(Threshold.model_validate({"family": family, "least": least} | known),))


@pytest.fixture(scope="module")
def reader(proof: Form) -> Iterator[FormReader]:
    releases = [Release.open(ROOT / "exported" / name) for name in ("digits", "chars62")]
    with open_form_reader(proof, releases) as opened:
        yield opened


def test_what_is_accepted_is_right(reader: FormReader, straight: list[Page], scanned: list[Page]) -> None:
    accepted = fields = 0
    for page in (*straight, *scanned):
        result = reader.read(page.grey)
        assert (result.status, result.reason) == ("read", "")
        assert result.registration_px is not None
        for field in result.fields:
            fields += 1
            accepted += field.accepted
            assert field.accepted == (not field.reasons)
            assert set(field.reasons) <= set(REASONS)
            assert not field.accepted or field.value == page.truth[field.name], (page.name, field)
    assert fields == 22 * 11
    assert accepted >= 22  # checkboxes at least


def test_boxes_lie_on_the_page_and_characters_make_the_value(reader: FormReader, straight: list[Page]) -> None:
    page = straight[0]
    result = reader.read(page.grey)
    for field in result.fields:
        x, y, width, height = field.box
        assert 0 <= x < x + width <= page.grey.shape[1]
        assert 0 <= y < y + height <= page.grey.shape[0]
        if field.written:
            written = "".join(w.label or "" for w in field.written)
            assert written in (field.value, field.value.replace(".", "")) or "-" in field.value
        assert all(0 <= w.confidence <= 1 for w in field.written)
    documents = [result.document("a.png")]
    shown = document("proof", "digits", documents)
    assert set(shown) == {"schema", "form", "release", "pages"}
    assert set(documents[0]) == {"path", "status", "reason", "registration_px", "ms", "fields"}
    assert set(documents[0]["fields"][0]) == {
        "name", "value", "confidence", "accepted", "reasons", "box", "alternatives",
    }  # fmt: skip


def test_a_page_that_is_not_the_form_is_refused_with_the_reason(reader: FormReader) -> None:
    result = reader.read(np.full((1000, 800), 255, dtype=np.uint8))
    assert (result.status, result.fields, result.registration_px) == ("refused", (), None)
    assert result.reason.startswith("blank-page: ")


def test_without_a_threshold_everything_written_goes_to_a_person(
    proof: Form, straight: list[Page], reader: FormReader
) -> None:
    models = [Model(model.runner) for model in reader._models]
    result = FormReader(proof, models).read(straight[0].grey)
    for field in result.fields:
        assert field.accepted == (field.name in {f.name for f in proof.fields if f.kind == "checkbox"})
        assert field.accepted or "not-calibrated" in field.reasons


def test_letters_are_left_to_a_person_where_the_release_knows_digits_alone(
    proof: Form, straight: list[Page], reader: FormReader
) -> None:
    digits = Model(reader._models[0].runner, accepting("digits", 0.9))
    found = {field.name: field for field in FormReader(proof, [digits]).read(straight[0].grey).fields}
    kinds = {field.name: field.kind for field in proof.fields}
    for name, field in found.items():
        if kinds[name] in ("letters", "alphanumeric") and straight[0].truth[name]:
            assert field.reasons == ("not-readable",)
            assert not field.accepted
    assert any(found[name].accepted for name, kind in kinds.items() if kind == "digits")


def test_a_required_field_that_is_empty_goes_to_a_person(reader: FormReader) -> None:
    form = Form.model_validate(
        {
            "id": "empty",
            "fields": [
                {"kind": "digits", "name": "must", "x": 30, "y": 40, "boxes": 4, "required": True},
                {"kind": "digits", "name": "may", "x": 30, "y": 60, "boxes": 4},
                {"kind": "checkbox", "name": "agreed", "x": 30, "y": 80, "required": True},
            ],
        }
    )
    maker = Maker(form, None, seed=1, plain=True)  # type: ignore[arg-type]
    model = Model(reader._models[0].runner, accepting("digits", 0.9))
    page = maker._blank(300).grey
    must, may, agreed = FormReader(form, [model]).read(page).fields
    assert (must.value, must.reasons, must.accepted) == ("", ("required-empty",), False)
    assert (may.value, may.reasons, may.accepted) == ("", (), True)
    assert (agreed.value, agreed.reasons) == ("no", ("required-empty",))


def test_releases_of_other_sizes_do_not_go_together(proof: Form, reader: FormReader, release_dir: Path) -> None:
    runner = reader._models[0].runner
    small = runner.spec.model_copy(
        update={"preprocessing": runner.spec.preprocessing.model_copy(update={"height": 20, "width": 20})}
    )
    other = type("Other", (), {"spec": small})()
    with pytest.raises(FormError, match="images of different sizes"):
        FormReader(proof, [Model(runner), Model(other)])
