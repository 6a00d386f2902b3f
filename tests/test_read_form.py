"""read-form: words in; one document, a table, a CSV and a folder of results out."""

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from hwr_export.datasets import Dataset
from hwr_export.scanner.form import units
from tests.conftest import ROOT
from tests.scanner.form import fakes
from tests.scanner.form.fakes import FORM, PLAIN, FakeOpener, filled_form, save
from tests.scanner.form.hostile import EXAMPLE

DIGITS = ROOT / "exported" / "digits"
Command = Callable[..., Result]


@pytest.fixture
def read_form(tmp_path: Path, hwr: Command, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Run the command with a reader that does as pages say."""
    (tmp_path / "memory").mkdir()
    (tmp_path / "form.yaml").write_text(FORM)
    monkeypatch.setattr(units, "FormReaderOpener", lambda *_: FakeOpener(tmp_path / "memory"))
    monkeypatch.chdir(tmp_path)

    def run(*words: object, form: str = "form.yaml") -> Result:
        return hwr("read-form", *words, "--form", form, "--release", DIGITS, "--jobs", 1)

    return run


def test_the_document(tmp_path: Path, read_form: Command) -> None:
    save(Path("in/b.png"), PLAIN)
    save(Path("in/a.tif"), PLAIN + 1, PLAIN + 2)
    result = read_form("in", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert {k: v for k, v in document.items() if k != "pages"} == {"schema": 1, "form": "fake", "release": "digits"}
    assert [(p["path"], p["fields"][0]["value"]) for p in document["pages"]] == [
        ("in/a.tif#1", "101"),
        ("in/a.tif#2", "102"),
        ("in/b.png", "100"),
    ]
    page = document["pages"][0]
    assert list(page) == ["path", "status", "reason", "registration_px", "ms", "fields"]
    keys = ["name", "value", "confidence", "accepted", "reasons", "box", "alternatives"]
    assert sorted(page["fields"][0]) == sorted(keys)


def test_a_refused_page_is_in_the_document_and_exits_1(read_form: Command) -> None:
    save(Path("blank.png"), fakes.REFUSED)
    Path("broken.png").write_bytes(b"\x89PNG")
    result = read_form("blank.png", "broken.png", "--json")
    assert result.exit_code == 1
    pages = json.loads(result.stdout)["pages"]
    assert [(p["status"], p["reason"].split(":")[0], p["fields"]) for p in pages] == [
        ("refused", "blank-page", []),
        ("refused", "unreadable", []),
    ]


def test_few_pages_are_shown_field_by_field(read_form: Command) -> None:
    save(Path("a.png"), PLAIN)
    shown = read_form("a.png").stdout
    assert "a.png" in shown
    assert "level" in shown
    assert "referred" in shown
    assert "1 page: 1 read, 0 refused; 1 field accepted, 1 left to a person." in shown


def test_more_pages_are_shown_in_a_row_each_and_many_only_where_refused(read_form: Command) -> None:
    for n in range(4):
        save(Path(f"in/{n}.png"), PLAIN + n)
    shown = read_form("in").stdout
    assert all(f"in/{n}.png" in shown for n in range(4))
    assert "level" not in shown
    save(Path("in/many.tif"), *[PLAIN] * 37, fakes.REFUSED)
    shown = read_form("in").stdout
    assert "in/1.png" not in shown
    assert "in/many.tif#38" in shown
    assert "nothing is on it" in shown
    assert "42 pages: 41 read, 1 refused; 41 fields accepted, 41 left to a person." in shown


def test_the_csv_is_for_spreadsheets(tmp_path: Path, read_form: Command) -> None:
    Path("form.yaml").write_text(FORM.replace("name: doubt", "name: status"))
    save(Path("=1+2.png"), PLAIN)
    save(Path('a "quoted", name.png'), fakes.REFUSED)
    strange = b"\xff.png".decode("utf-8", "surrogateescape")
    save(Path(strange), PLAIN + 1)
    result = read_form("=1+2.png", 'a "quoted", name.png', strange, "--csv", "out.csv")
    assert result.exit_code == 1
    assert "\\udcff.png" in result.stdout
    data = Path("out.csv").read_bytes()
    rows = list(csv.reader(data.decode("utf-8", "surrogateescape").splitlines()))
    assert rows == [
        ["path", "status", "reason", "level", "level accepted", "field status", "field status accepted"],
        ["'=1+2.png", "read", "", "100", "yes", "", ""],
        ['a "quoted", name.png', "refused", "blank-page: nothing is on it", "", "", "", ""],
        [strange, "read", "", "101", "yes", "", ""],
    ]
    assert data.endswith(b"\r\n")


def test_the_same_command_again_reads_nothing(read_form: Command) -> None:
    save(Path("in/a.png"), PLAIN)
    first = read_form("in", "-o", "in/out", "--json", "--annotate", "in/drawn")
    again = read_form("in", "-o", "in/out", "--json", "--annotate", "in/drawn")
    assert first.stdout == again.stdout
    assert fakes.times_read(Path("memory")) == [PLAIN]
    assert sorted(path.name for path in Path("in/out").iterdir()) == ["form.yaml", "results.jsonl", "run.json"]
    assert [path.name for path in Path("in/drawn").rglob("*.jpg")] == ["a.png.jpg"]
    run = json.loads(Path("in/out/run.json").read_text())
    assert [release["name"] for release in run["releases"]] == ["digits"]
    assert "1 of the pages were read before." in read_form("in", "-o", "in/out").stdout


def test_another_release_is_refused(read_form: Command, hwr: Command) -> None:
    save(Path("a.png"), PLAIN)
    read_form("a.png", "-o", "out")
    result = hwr(
        "read-form",
        "a.png",
        "--form",
        "form.yaml",
        "--release",
        ROOT / "exported" / "chars62",
        "-o",
        "out",
        "--jobs",
        1,
    )
    assert result.exit_code == 2
    assert "out has results read with digits, and chars62 is given; give a new folder" in result.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["gone.png"], "there is no file or folder gone.png"),
        (["empty"], "no page file (PNG, JPEG, TIFF, PDF) is in empty"),
        (["form.yaml", "-o", "."], ". is no folder of results (empty is in it, run.json is not); give a new one"),
    ],
)
def test_wrong_words(read_form: Command, words: list[str], said: str) -> None:
    Path("empty").mkdir()
    result = read_form(*words)
    assert result.exit_code == 2
    assert said in result.stderr


def test_without_opencv_it_says_what_to_install(tmp_path: Path, hwr_process: Callable) -> None:
    save(tmp_path / "a.png", PLAIN)
    (tmp_path / "form.yaml").write_text(FORM)
    result = hwr_process(
        "read-form", tmp_path / "a.png", "--form", tmp_path / "form.yaml", "--release", DIGITS, without=("yaml",)
    )
    assert result.returncode == 2
    assert "pip install 'hwr-export[forms]'" in result.stderr


def test_handwriting_on_a_printed_form_is_read(
    tmp_path: Path, hwr: Command, mnist_test: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the real reader, in every kind of file."""
    monkeypatch.chdir(tmp_path)
    page, expected = filled_form(mnist_test, "customer", "phone")
    page.save("a.png")
    page.save("b.jpg", quality=80)
    page.save("c.tif", compression="tiff_lzw", save_all=True, append_images=[page.rotate(180)])
    page.save("d.pdf", resolution=200)
    result = hwr(
        "read-form", "a.png", "b.jpg", "c.tif", "d.pdf", "--form", EXAMPLE, "--release", DIGITS,
        "--json", "--annotate", "drawn", "-o", "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    pages = json.loads(result.stdout)["pages"]
    assert [p["path"] for p in pages] == ["a.png", "b.jpg", "c.tif#1", "c.tif#2", "d.pdf"]
    for found in pages:
        values = {field["name"]: field["value"] for field in found["fields"]}
        assert values == dict.fromkeys(values, "") | {"express": "no"} | expected, found["path"]
        assert found["registration_px"] < 1
    assert len(list(Path("drawn").glob("*.jpg"))) == 5
