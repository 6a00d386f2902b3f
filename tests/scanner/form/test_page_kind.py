"""Pages of a form in the scanner service."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hwr_export.datasets import Dataset
from hwr_export.errors import FormError, ImageError
from hwr_export.scanner.config import load_config
from hwr_export.scanner.form.page_kind import FormConfig, FormPageReader, page_field
from hwr_export.scanner.form.results import FieldResult, Written
from hwr_export.scanner.page import Character
from hwr_export.scanner.reading import page_reader
from tests.conftest import ROOT
from tests.scanner.devices import results, until, write_config
from tests.scanner.form.fakes import FORM, FakeReader, field, filled_form
from tests.scanner.form.hostile import EXAMPLE

BOX = (1, 2, 3, 4)
CONFIG = '[page]\nkind = "form"\nform = "form.yaml"\n[[sources]]\nkind = "watch"\nfolder = "in"\n'


def test_the_definition_lies_beside_the_configuration(tmp_path: Path) -> None:
    write_config(tmp_path / "scan.toml", CONFIG)
    config = load_config(tmp_path / "scan.toml")
    assert config.page == FormConfig(kind="form", form=tmp_path / "form.yaml")
    with pytest.raises(FormError, match=r"form\.yaml cannot be read: No such file or directory"):
        page_reader(config, None)  # before anything is asked of the release


def test_fields_are_rejected_with_their_reasons() -> None:
    accepted = page_field(field("amount", "12"))
    assert (accepted.value, accepted.confidence, accepted.rejected) == ("12", 0.875, False)
    assert "reasons" not in accepted.document()
    empty = FieldResult("iban", "", 0.6, False, ("required-empty",), BOX, (), (Written(None, 0.6, BOX),))
    found = page_field(empty)
    assert (found.value, found.rejected) == (None, True)
    assert found.characters == (Character(None, 0.0, False, BOX),)
    assert found.document()["reasons"] == ("required-empty",)
    assert page_field(field("amount", "12", accepted=False)).characters[0].rejected


def test_a_refused_page_is_an_error_with_its_reason(tmp_path: Path) -> None:
    reader = FormPageReader.__new__(FormPageReader)
    reader._reader = FakeReader(tmp_path)
    page = np.full((9, 9), 101, np.uint8)
    assert [f.value for f in reader.read(page)] == ["101", "101"]
    page[0, 0] = 5
    with pytest.raises(ImageError, match=r"^blank-page: nothing is on it$"):
        reader.read(page)


def test_services_without_forms_need_no_opencv(tmp_path: Path) -> None:
    """And those with some are told what to install."""
    (tmp_path / "form.yaml").write_text(FORM)
    write_config(tmp_path / "scan.toml", CONFIG)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('cv2', 'yaml', 'pypdfium2')))\n"
        "from pathlib import Path\n"
        "import hwr_export.scanner.service\n"
        "from hwr_export.errors import ScannerError\n"
        "from hwr_export.scanner.config import load_config\n"
        "from hwr_export.scanner.reading import page_reader\n"
        "try: page_reader(load_config(Path(sys.argv[1])), None)\n"
        "except ScannerError as err: print(err)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "scan.toml")], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout == "pages of kind form need cv2: pip install 'hwr-export[forms]'\n"


def test_the_service_reads_a_form(device: Path, service, mnist_test: Dataset) -> None:
    page, expected = filled_form(mnist_test, "customer")
    text = f'[page]\nkind = "form"\nform = "{EXAMPLE}"\n[[sources]]\nkind = "watch"\nfolder = "in"\nsettle_s = 0.3\n'
    (device / "in").mkdir()
    running = service(text)
    page.rotate(180).save(device / "in" / "page.png")
    (result,) = until(lambda: results(device))
    fields = {field["name"]: field for field in result["fields"]}
    assert fields["customer"]["value"] == expected["customer"]
    assert fields["customer"]["rejected"]  # the release says nothing of forms
    assert fields["customer"]["reasons"] == ["not-calibrated"]
    assert [c["label"] for c in fields["customer"]["characters"]] == list(expected["customer"])
    Image.new("L", (1654, 2339), 255).save(device / "in" / "blank.png")
    blank = until(lambda: [r for r in results(device) if r["error"]])[0]
    assert blank["error"].startswith("blank-page: ")
    assert running.end() == 0
