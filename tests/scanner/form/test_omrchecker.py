"""A template of OMRChecker becomes a form that prints, and everything that did not map is told."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.errors import FormError
from hwr_export.scanner.form.definition import dump_form, parse_form
from hwr_export.scanner.form.fields import CheckboxField, DigitsField
from hwr_export.scanner.form.layout import lay_out
from hwr_export.scanner.form.omrchecker import BORDERS_MM, Imported, import_template
from hwr_export.scanner.form.omrchecker_template import expanded
from hwr_export.scanner.form.sheet import sheet_pdf
from tests.conftest import ROOT

EXAMPLE = ROOT / "docs" / "examples" / "omrchecker-template.json"
QUESTIONS = {
    "fieldType": "QTYPE_MCQ4",
    "origin": [200, 300],
    "bubblesGap": 60,
    "labelsGap": 50,
    "fieldLabels": ["q1..3"],
}
COLUMNS = {"fieldType": "QTYPE_INT", "origin": [200, 300], "bubblesGap": 40, "labelsGap": 50, "fieldLabels": ["n1..4"]}


def template(*blocks: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """Return a template with blocks one below the other."""
    placed = {
        f"b{i}": block | {"origin": [block["origin"][0], block["origin"][1] + 500 * i]}
        for i, block in enumerate(blocks)
    }
    page = {"pageDimensions": [1200, 1700], "bubbleDimensions": [30, 30], "preProcessors": []}
    return {**page, "fieldBlocks": placed, **changes}


def imported(tmp_path: Path, document: Any, width: float = 210.0) -> Imported:
    path = tmp_path / "template.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return import_template(path, "Answers 1", width)


def told(found: Imported) -> dict[str, str]:
    return {each.what: each.where for each in found.unmapped}


def test_bubbles_become_checkboxes_where_they_lie(tmp_path: Path) -> None:
    found = imported(tmp_path, template(QUESTIONS), 240.0)
    assert [field.name for field in found.form.fields] == [f"q{i}_{c}" for i in (1, 2, 3) for c in "ABCD"]
    assert found.form.id == "answers-1"
    assert (found.form.page.width, found.form.page.height) == (240, 340)
    scale = 240 / 1200
    for i, field in enumerate(found.form.fields):
        assert isinstance(field, CheckboxField)
        assert field.size == 30 * scale
        assert field.x == pytest.approx((200 + i % 4 * 60) * scale, abs=0.01)
        assert field.y == pytest.approx((300 + i // 4 * 50) * scale, abs=0.01)
    assert [text.text for text in found.form.texts] == ["q1", *"ABCD", "q2", "q3"]
    above = found.form.texts[1]
    assert above.y < found.form.fields[0].y
    assert found.form.fields[0].x < above.x < found.form.fields[0].x + 6


def test_joined_columns_of_digits_become_one_field(tmp_path: Path) -> None:
    found = imported(tmp_path, template(COLUMNS, customLabels={"Roll": ["n1..4"]}))
    (field,) = found.form.fields
    assert isinstance(field, DigitsField)
    assert (field.name, field.boxes, field.characters) == ("Roll", 4, None)
    assert field.box is not None
    assert field.box.pitch == pytest.approx(50 * 210 / 1200, abs=0.01)
    assert [text.text for text in found.form.texts] == ["Roll"]


def test_other_columns_stay_apart(tmp_path: Path) -> None:
    odd = {"bubbleValues": ["1", "3", "5"], "direction": "vertical"}
    block = {k: v for k, v in COLUMNS.items() if k != "fieldType"} | odd | {"labelsGap": [50, 80, 50]}
    found = imported(tmp_path, template(block, customLabels={"Roll": ["n1..4", "x"]}))
    assert [(f.name, f.boxes, f.characters) for f in found.form.fields] == [("n1-n2", 2, "135"), ("n3-n4", 2, "135")]
    what = told(found)
    assert what["not joined: n1-n2, n3-n4 stand by themselves"] == "customLabels.Roll"
    assert "the label 'x' is not there, or is joined to others already" in what
    sideways = {k: v for k, v in COLUMNS.items() if k != "fieldType"} | {
        "bubbleValues": list("012"),
        "direction": "horizontal",
    }
    assert len(imported(tmp_path, template(sideways)).form.fields) == 4


def test_the_newer_spelling_says_the_same(tmp_path: Path) -> None:
    document = json.loads(EXAMPLE.read_text())
    newer = dict(document)
    newer["templateDimensions"] = newer.pop("pageDimensions")
    newer["outputColumns"] = {"customOrder": newer["outputColumns"], "sortType": "CUSTOM"}
    newer["fieldBlocksOffset"] = [-20, 10]
    newer["customBubbleFieldTypes"] = {"TIME": {"bubbleValues": ["morning", "evening"], "direction": "vertical"}}
    blocks = {}
    for name, block in document["fieldBlocks"].items():
        kind = block.get("fieldType", "TIME")
        kept = {k: v for k, v in block.items() if k not in ("fieldType", "bubbleValues", "direction")}
        origin = [block["origin"][0] + 20, block["origin"][1] - 10]
        blocks[name] = {**kept, "origin": origin, "bubbleFieldType": kind, "fieldDetectionType": "BUBBLES_THRESHOLD"}
    newer["fieldBlocks"] = blocks
    assert imported(tmp_path, newer).form == imported(tmp_path, document).form


def test_columns_of_the_output_give_the_order(tmp_path: Path) -> None:
    document = template(QUESTIONS, COLUMNS, customLabels={"Roll": ["n1..4"]}, outputColumns=["Roll", "q3"])
    found = imported(tmp_path, document)
    assert [field.name for field in found.form.fields][:6] == ["Roll", "q3_A", "q3_B", "q3_C", "q3_D", "q1_A"]
    assert told(found)["these come first, in their order; results have the other fields as well"] == "outputColumns"


def test_all_that_did_not_map_is_told(tmp_path: Path) -> None:
    steps = [{"name": n, "options": {}} for n in ("CropPage", "CropOnMarkers", "GaussianBlur")]
    extra = {"emptyValue": "-", "colour": "red"}
    blocks = [
        QUESTIONS | extra,
        QUESTIONS | {"fieldDetectionType": "OCR", "fieldLabels": ["o"]},
        QUESTIONS | {"fieldType": "QTYPE_ODD", "fieldLabels": ["u"]},
        {"origin": [1, 1]},
    ]
    found = imported(tmp_path, template(*blocks, preProcessors=steps, sortFiles={}, emptyValue="?"))
    assert told(found) == {
        "left out: the key is not known": "fieldBlocks.b0.colour",
        'left out: a field in which nothing is written has the value ""': "fieldBlocks.b0.emptyValue, emptyValue",
        "left out: blocks of the kind OCR are not imported": "fieldBlocks.b1",
        "left out: its kind 'QTYPE_ODD' is not known; give bubbleValues and direction instead": "fieldBlocks.b2",
        "left out: bubblesGap: Field required": "fieldBlocks.b3",
        "each bubble is a checkbox with a result of its own; that only one is ticked is not checked": "fieldBlocks.b0",
        "left out: pages are laid straight by the form's own marks": (
            "preProcessors.CropPage, preProcessors.CropOnMarkers"
        ),
        "left out: pages are read as they are scanned": "preProcessors.GaussianBlur",
        "left out: it has no counterpart": "sortFiles",
    }


def test_a_full_page_gets_white_around_it_for_the_marks(tmp_path: Path) -> None:
    block = QUESTIONS | {"origin": [10, 10], "fieldLabels": ["q1..33"], "bubblesGap": 80}
    found = imported(tmp_path, template(block))
    assert any(what.startswith("made smaller, for ") for what in told(found))
    assert 0 < found.form.fields[0].x < max(BORDERS_MM) + 2
    assert len(lay_out(found.form).marks) == 4
    assert sheet_pdf(found.form)


def test_names_that_a_form_cannot_have_are_made_over(tmp_path: Path) -> None:
    block = QUESTIONS | {"fieldLabels": ["1. Frage", "Ответ"], "bubbleValues": ["ja", "да"], "direction": "horizontal"}
    del block["fieldType"]
    found = imported(tmp_path, template(block))
    assert [f.name for f in found.form.fields] == ["f1__Frage_ja", "f1__Frage___", "f______ja", "f________"]
    assert told(found)["there is no room to print да, Ответ"] == "fieldBlocks.b0"


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ("{", "template.json is no JSON"),
        ("[" * 100_000, "template.json is no JSON"),
        ("[]", "is no template of OMRChecker: document: Input should be a valid dictionary"),
        ({"pageDimensions": [1, 2]}, "is no template of OMRChecker: bubbleDimensions: Field required"),
        (" " * 200_001, "is larger than 200,000 bytes, which no template is"),
        (template(), "is no template of OMRChecker: fieldBlocks: Dictionary should have at least 1 item"),
        (template(QUESTIONS | {"bubblesGap": -1}), "no block of bubbles is in it .*: left out: bubblesGap: Input"),
        (template(QUESTIONS | {"fieldLabels": ["q1..999999"]}), "the labels 'q1..999999' are none, or more than 1,000"),
        (template(QUESTIONS | {"fieldLabels": ["q9..3"]}), "the labels 'q9..3' are none"),
        (template(*[QUESTIONS | {"fieldLabels": [f"{c}1..900"]} for c in "ab"]), "it has more than 1,000 labels"),
        (template(QUESTIONS | {"fieldLabels": ["q1..300"]}), "it would have 1,200 fields; a form has 1,000 at most"),
        (template(QUESTIONS | {"bubblesGap": 15}), "'q1' lie so near to each other that boxes would be 1.7 mm wide"),
        (template(COLUMNS | {"labelsGap": 15}), "the columns of 'n1' leave no room to write in: 1.7 mm"),
        (template(QUESTIONS, pageDimensions=[1200, 9000]), "would be 1575 mm high; sheets are 50 to 1,000 mm"),
        (template(QUESTIONS, QUESTIONS | {"origin": [200, -200], "fieldLabels": ["z"]}), "are less than 0.8 mm apart"),
        (template(QUESTIONS | {"origin": [5000, 300]}), "beyond the page"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_refused(tmp_path: Path, document: Any, said: str) -> None:
    with pytest.raises(FormError, match=said):
        imported(tmp_path, document)
    with pytest.raises(FormError, match=r"there.json cannot be read: No such file .*; give OMRChecker's template.json"):
        import_template(tmp_path / "there.json", "x")


def test_a_label_that_stands_twice_is_taken_once(tmp_path: Path) -> None:
    found = imported(tmp_path, template(QUESTIONS, QUESTIONS))
    assert len(found.form.fields) == 12
    assert told(found)["the label 'q1' is left out, since it is there already"] == "fieldBlocks.b1"


@given(st.integers(0, 99), st.integers(0, 99))
def test_ranges_are_what_they_say(first: int, more: int) -> None:
    assert expanded(f"q{first}..{first + more}") == [f"q{n}" for n in range(first, first + more + 1)]
    assert expanded(f"q{first}") == [f"q{first}"]


SIDES = st.integers(0, 1400)
BLOCKS = st.fixed_dictionaries(
    {
        "origin": st.tuples(SIDES, SIDES),
        "fieldType": st.sampled_from(["QTYPE_INT", "QTYPE_MCQ4", "QTYPE_MCQ5_RTL", "QTYPE_INT_FROM_1", "ODD"]),
        "bubblesGap": st.one_of(st.integers(35, 120), st.integers(0, 120)),
        "labelsGap": st.one_of(st.integers(35, 120), st.integers(0, 120), st.lists(st.integers(0, 120), max_size=4)),
        "fieldLabels": st.lists(
            st.sampled_from(["a", "b", "q1..3", "q2..5", "n1..4", "Ж", ".", "1"]), min_size=1, max_size=3
        ),
    },
    optional={
        "bubbleValues": st.lists(st.sampled_from([*"01AB", "x y", "..", "é", ""]), max_size=4),
        "direction": st.sampled_from(["horizontal", "vertical", "up"]),
        "bubbleDimensions": st.tuples(st.integers(0, 60), st.integers(0, 60)),
    },
)


@settings(max_examples=40, deadline=None)
@given(
    st.dictionaries(st.text(max_size=4), BLOCKS, min_size=1, max_size=3),
    st.dictionaries(
        st.text(min_size=1, max_size=4),
        st.lists(st.sampled_from(["a", "q1..3", "n1..4", "n4"]), max_size=3),
        max_size=2,
    ),
    st.lists(st.sampled_from(["a", "q1..9", "Roll"]), max_size=3),
)
def test_any_template_is_a_form_that_prints_or_a_sentence(
    tmp_path_factory: pytest.TempPathFactory, blocks: Any, joined: Any, columns: Any
) -> None:
    document = template(fieldBlocks=blocks, customLabels=joined, outputColumns=columns)
    try:
        found = imported(tmp_path_factory.mktemp("drawn"), document)
    except FormError:
        return
    assert parse_form(dump_form(found.form).encode(), "again") == found.form
    assert sheet_pdf(found.form)
