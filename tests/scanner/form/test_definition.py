"""A definition says what it means, or is refused in one sentence."""

import datetime as dt
import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.errors import FormError
from hwr_export.scanner.form.definition import MAX_BYTES, Form, dump_form, load_form, parse_form
from hwr_export.scanner.form.fields import AlphanumericField, IdField, LettersField
from hwr_export.scanner.form.layout import CODE_VALUES, form_code, lay_out
from tests.conftest import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "payment-order.yaml"


def document(**changes: object) -> dict[str, object]:
    return {
        "schema": 1,
        "id": "slip",
        "fields": [
            {"kind": "digits", "name": "number", "x": 30, "y": 40, "boxes": 5},
            {"kind": "amount", "name": "sum", "x": 30, "y": 60, "boxes": 6},
            {"kind": "date", "name": "day", "x": 30, "y": 80, "boxes": 8},
        ],
        **changes,
    }


def field(**changes: object) -> dict[str, object]:
    return document(fields=[{"kind": "digits", "name": "number", "x": 30, "y": 40, "boxes": 5, **changes}])


def parse(document: object) -> Form:
    return parse_form(json.dumps(document, default=str).encode(), "slip.json")


def test_the_example_is_a_form_and_survives_being_written() -> None:
    form = load_form(EXAMPLE)
    assert parse_form(dump_form(form).encode(), "again") == form
    assert [f.name for f in form.fields][:2] == ["payee", "iban"]


def test_yaml_and_json_say_the_same() -> None:
    assert parse_form(yaml.safe_dump(document()).encode(), "slip.yaml") == parse(document())


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (document(colour="red"), "colour is no key"),
        (document(id="No Spaces"), "id: String should match pattern"),
        (field(boxes=None), "give `boxes` or `line`, one of them"),
        (field(line=40), "give `boxes` or `line`, one of them"),
        (field(groups=[2, 2]), "groups of 4 boxes do not make 5"),
        (field(characters="12é"), "'é' is no digit and no letter from A to Z"),
        (field(characters="ABC"), "none of the characters 'ABC' can stand"),
        (field(x=190), "'number' reaches to (219, 47) mm, beyond the page of 210 x 297 mm"),
        (field(x=12, y=12), "'number' lies on the top left mark or the white around it"),
        (field(box={"width": 7, "pitch": 6}), "boxes of 7 mm overlap at a pitch of 6 mm"),
        (field(kind="date", boxes=6), "a date written DDMMYYYY has 8 boxes, not 6"),
        (field(kind="date", boxes=6, order="DDMMYY"), "a year of two digits tells 100 years apart"),
        (field(kind="date", boxes=8, first="2030-01-01", last="2020-01-01"), "is before its first"),
        (field(kind="amount", boxes=2), "2 boxes leave no digit before 2 decimals"),
        (field(kind="id"), "check: Field required"),
        (document(fields=[document()["fields"][0]] * 2), "two fields are called 'number'"),  # type: ignore[index]
        (document(rules=[{"kind": "range", "field": "day", "most": 3}]), "the field 'day' of kind date"),
        (document(rules=[{"kind": "range", "field": "sum"}]), "give `least` or `most`"),
        (document(rules=[{"kind": "order", "earlier": "day", "later": "night"}]), "'night', which the form does not"),
        (document(rules=[{"kind": "sum", "total": "sum", "parts": ["number", "sum"]}]), "names a field twice"),
        (document(page={"width": 50, "height": 50}, marks={"size": 15}), "marks of 15 mm do not fit"),
        (document(fields=[]), "at least 1 item"),
        ([1, 2], "valid dictionary"),
    ],
)
def test_what_is_wrong_is_said(broken: object, said: str) -> None:
    with pytest.raises(FormError, match=re.escape(said)) as caught:
        parse(broken)
    assert str(caught.value).startswith("slip.json: ")
    assert "\n" not in str(caught.value)


def test_fields_must_not_lie_on_each_other() -> None:
    first, second, _ = document()["fields"]  # type: ignore[misc]
    with pytest.raises(FormError, match=r"'number' and 'sum' are less than 0\.8 mm apart"):
        parse(document(fields=[first, {**second, "y": 47.5}]))
    assert parse(document(fields=[first, {**second, "y": 48}])).fields


def test_a_file_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(FormError, match="cannot be read: No such file"):
        load_form(tmp_path / "none.yaml")
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MAX_BYTES + 1))
    with pytest.raises(FormError, match="is larger than 200,000 bytes"):
        load_form(large)
    for data in (b"\xff\xfe\x00", b"a: [1", b"{1", b'{"a":' * 30_000):
        with pytest.raises(FormError, match="neither YAML nor JSON"):
            parse_form(data, "x")
    for data in (b"[" * 190_000, b"- " * 90_000):
        with pytest.raises(FormError, match="more than 12 levels deep"):
            parse_form(data, "x")
    with pytest.raises(FormError, match="refers to a part of itself"):
        parse_form(b"a: &a [1]\nb: [*a, *a]", "x")


def test_alphabets() -> None:
    place = {"name": "a", "x": 0, "y": 0, "boxes": 3}
    assert LettersField(kind="letters", **place).alphabet == "ABCDEFGHIJKLMNOPQRSTUVWXYZ"  # type: ignore[arg-type]
    assert len(AlphanumericField(kind="alphanumeric", case="any", **place).alphabet) == 62  # type: ignore[arg-type]
    assert IdField(kind="id", check="mod11", **place).alphabet == "0123456789X"  # type: ignore[arg-type]
    assert LettersField(kind="letters", characters="NY", **place).alphabet == "NY"  # type: ignore[arg-type]


def test_boxes_stand_where_they_are_said_to() -> None:
    layout = lay_out(load_form(EXAMPLE))
    due = next(place for place in layout.places if place.field.name == "due")
    assert [round(box.x, 2) for box in due.boxes] == [28, 34, 42.5, 48.5, 57, 63, 69, 75]
    assert due.area.right == due.boxes[-1].right == 80
    assert [mark.id % 4 for mark in layout.marks] == [0, 1, 2, 3]
    assert layout.marks[2].rect.right == 201


@given(st.integers(1, 9999), st.integers(1, 9999))
def test_three_corners_tell_the_fourth(one: int, other: int) -> None:
    first, second = (form_code(parse(document(version=version))) for version in (one, other))
    assert all(sum(code) % CODE_VALUES == 0 and 0 <= min(code) <= max(code) < CODE_VALUES for code in (first, second))
    assert one == other or sum(a == b for a, b in zip(first, second, strict=True)) < 3


def test_no_marks() -> None:
    assert lay_out(parse(document(marks={"kind": "none"}))).marks == ()


def test_a_day_keeps_its_type() -> None:
    day = load_form(EXAMPLE).fields[4]
    assert day.kind == "date"
    assert day.first == dt.date(2020, 1, 1)
