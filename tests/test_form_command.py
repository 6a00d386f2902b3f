"""The commands that make forms: files belong together, tables and JSON say the same, errors are one sentence."""

import json
import re
import shutil
from pathlib import Path

import cv2
import pypdfium2
import pytest

from hwr_export.scanner.form.definition import load_form
from hwr_export.scanner.form.layout import lay_out
from tests.conftest import ROOT
from tests.test_tutorial import blocks, execute

EXAMPLES = ROOT / "docs" / "examples"
ORDER = EXAMPLES / "payment-order.yaml"
TEMPLATE = EXAMPLES / "omrchecker-template.json"


@pytest.fixture
def order(tmp_path: Path) -> Path:
    return Path(shutil.copy(ORDER, tmp_path / "order.yaml"))


def test_make_writes_the_sheet_and_the_definition_that_reads_it(hwr, tmp_path: Path) -> None:
    out = tmp_path / "sheet.pdf"
    first = hwr("form", "make", ORDER, "-o", out)
    assert first.exit_code == 0, first.output
    assert "print it in its true size" in first.stdout
    assert load_form(tmp_path / "sheet.yaml") == load_form(ORDER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["sheet.pdf", "sheet.yaml"]
    before = out.read_bytes()
    again = hwr("form", "make", ORDER, "-o", out, "--json")
    assert out.read_bytes() == before
    document = json.loads(again.stdout)
    assert document["code"] == list(lay_out(load_form(ORDER)).code)
    assert document["definition"] == str(tmp_path / "sheet.yaml")
    assert document["sheet"]["size_bytes"] == len(before)
    pdf = pypdfium2.PdfDocument(before)
    assert len(pdf) == 1
    pdf.close()


def test_a_definition_beside_its_sheet_stays_as_it_is(hwr, order: Path) -> None:
    before = order.read_bytes()
    assert hwr("form", "make", order, "-o", order.with_suffix(".pdf")).exit_code == 0
    assert order.read_bytes() == before


def test_another_definition_is_not_written_over(hwr, order: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    for there in (ORDER.read_text().replace("id: payment-order", "id: other"), "no form"):
        other.write_text(there)
        refused = hwr("form", "make", order, "-o", tmp_path / "other.pdf")
        assert refused.exit_code == 2
        assert "is there already and is no definition of the form 'payment-order'" in refused.stderr
        assert other.read_text() == there
    assert not (tmp_path / "other.pdf").exists()


def test_preview_is_a_picture_of_the_sheet(hwr, tmp_path: Path) -> None:
    out = tmp_path / "sheet.png"
    result = hwr("form", "preview", ORDER, "-o", out, "--dpi", 72)
    assert result.exit_code == 0, result.output
    assert cv2.imread(str(out)).shape == (842, 596, 3)


def test_check_lists_the_fields(hwr) -> None:
    result = hwr("form", "check", ORDER)
    assert result.exit_code == 0, result.output
    assert "payment-order, version 1: 11 fields" in result.stdout
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines()[4:] if line.strip()}
    assert rows["due"] == "date 8 0-9 28, 117 52 x 7"
    assert rows["iban"] == "iban 22 0-9 A-Z 28, 68 154.56 x 7 required"
    assert rows["express"] == "checkbox 1 112, 169 5 x 5"
    document = json.loads(hwr("form", "check", ORDER, "--json").stdout)
    assert document["page"] == [210, 297]
    assert [f["name"] for f in document["fields"]] == [f.name for f in load_form(ORDER).fields]
    assert document["fields"][4]["area"] == [28, 117, 52, 7]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("boxes: 12", "boxes: 12, colour: red", "order.yaml: fields.0.letters.colour is no key; docs/forms.md lists"),
        ("x: 112, y: 99", "x: 29, y: 99", "order.yaml: the fields 'customer' and 'reference' are less than 0.8 mm"),
        ('"Voucher"', f'"{"Voucher" * 14}"', "order.yaml: the label of the field 'code' does not fit"),
        ('"Voucher"', '"Купон"', "order.yaml: 'К' in 'Купон' cannot be printed"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["check", "make", "preview"])
def test_a_form_that_cannot_be_printed_is_refused_in_a_sentence(
    hwr, order: Path, tmp_path: Path, command: str, old: str, new: str, said: str
) -> None:
    order.write_text(order.read_text().replace(old, new))
    out = () if command == "check" else ("-o", tmp_path / {"make": "sheet.pdf", "preview": "sheet.png"}[command])
    result = hwr("form", command, order, *out)
    assert result.exit_code == 2
    assert said in result.stderr.replace("\n", " ")
    assert result.stdout == ""
    assert [path.name for path in tmp_path.iterdir()] == ["order.yaml"]


def test_wrong_names_are_refused(hwr, tmp_path: Path) -> None:
    for words, said in (
        (("make", ORDER, "-o", tmp_path / "sheet.txt"), "sheet.txt does not end with .pdf"),
        (("preview", ORDER, "-o", tmp_path / "sheet.pdf"), "sheet.pdf does not end with .png"),
        (("make", ORDER, "-o", tmp_path / "none" / "sheet.pdf"), "none is no folder; make it first"),
        (("import", TEMPLATE, "-o", tmp_path / "form.json"), "form.json does not end with .yaml"),
        (("check", tmp_path / "none.yaml"), "none.yaml cannot be read: No such file or directory"),
        (("import", ORDER, "-o", tmp_path / "form.yaml"), "payment-order.yaml is no JSON"),
    ):
        result = hwr("form", *words)
        assert result.exit_code == 2
        assert said in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_the_schema_is_the_published_one(hwr) -> None:
    result = hwr("form", "schema")
    assert result.stdout == (ROOT / "docs" / "form-schema.json").read_text()
    document = json.loads(result.stdout)
    assert set(document["properties"]) >= {"schema", "id", "version", "fields", "rules", "texts", "marks"}


def test_import_writes_a_form_and_lists_what_did_not_map(hwr, tmp_path: Path) -> None:
    out = tmp_path / "answers.yaml"
    result = hwr("form", "import", TEMPLATE, "-o", out, "--page-width", 148)
    assert result.exit_code == 0, result.output
    assert "left out: pages are laid straight by the form's own marks" in result.stdout
    form = load_form(out)
    assert (form.id, form.page.width, len(form.fields)) == ("answers", 148, 48)
    assert form.fields[0].name == "Number"
    document = json.loads(hwr("form", "import", TEMPLATE, "-o", out, "--json").stdout)
    assert document["fields"] == 48
    assert {"where": "preProcessors.GaussianBlur", "what": "left out: pages are read as they are scanned"} in document[
        "unmapped"
    ]
    assert hwr("form", "make", out, "-o", tmp_path / "answers.pdf").exit_code == 0


def test_a_missing_extra_is_named(hwr_process) -> None:
    for package in ("reportlab", "yaml"):
        result = hwr_process("form", "check", ORDER, without=(package,))
        assert result.returncode == 2
        assert f"this needs {package}: pip install 'hwr-export[forms]'" in result.stderr


def test_the_page_about_forms_does_what_it_says(tmp_path: Path) -> None:
    page = ROOT / "docs" / "forms.md"
    for name in ("hwr_export", "docs", "exported", "scripts"):
        (tmp_path / name).symlink_to(ROOT / name)
    command = tmp_path / ".bin" / "hwr-export"
    command.parent.mkdir()
    command.write_text('#!/bin/sh\nexec python -m hwr_export "$@"\n')
    command.chmod(0o755)
    (tmp_path / "forms.md").write_text(
        re.sub(r"```(?!sh\n|text\n)\w+\n.*?```\n", "", page.read_text(), flags=re.DOTALL)
    )
    found = [block for block in blocks(tmp_path / "forms.md") if block.executed]
    assert len(found) >= 3
    for block in found:
        execute(block, tmp_path)
