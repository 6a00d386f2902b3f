"""The whole round: pages are read, what is referred is answered in the review, its crops renew a model."""

import json
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner

from hwr_export.cli import main as hwr_export
from hwr_export.scanner.form.decode import text_of
from hwr_export.scanner.form.definition import load_form
from hwr_export.scanner.form.fields import AmountField, CheckboxField
from hwr_export.scanner.review.crops import Crops
from hwr_export.scanner.review.desk import Desk
from hwr_export.scanner.review.pictures import Pictures
from hwr_export.scanner.review.referred import Referred
from hwr_export.scanner.review.results_folder import Folder
from hwr_export.scanner.review.store import Store
from scripts.pages.hand import load_hands
from scripts.pages.page import Maker
from tests.conftest import ROOT
from train.__main__ import main as train

METER = ROOT / "docs" / "examples" / "meter-reading.yaml"
PAGES = 50


def read(*words: object) -> None:
    done = CliRunner().invoke(hwr_export, ["read-form", *map(str, words)])
    assert done.exit_code == 0, done.output


def review_truly(results: Path, truth: dict[str, dict[str, str]], labelled: Path) -> int:
    """Answer every referred field with what the writer meant; return how many there were."""
    form = {field.name: field for field in load_form(METER).fields}
    folder = Folder(results)
    with Store(results, False) as store, closing(Referred(folder)) as referred:
        pictures = Pictures(folder.layout)
        desk = Desk(folder, referred, store, pictures, Crops(labelled, folder.layout, pictures, store.ledger.id))
        count = 0
        while (number := desk.next_for("anna")) is not None:
            item = desk.item(number)
            field, value = form[item.read.name], truth[Path(item.page.path).name][item.read.name]
            written = value if isinstance(field, CheckboxField) else text_of(field, value)
            if isinstance(field, AmountField):
                written = written.rjust(field.boxes or 0)
            desk.answer(item, desk.asked(number), "anna", written)
            count += 1
        return count


@pytest.mark.slow
def test_what_was_reviewed_renews_a_model(run_dir: Path, tmp_path: Path) -> None:
    maker = Maker(load_form(METER), load_hands("validation", letters=False), 11)
    truth = {}
    (tmp_path / "pages").mkdir()
    for number in range(1, PAGES + 1):
        page = maker.make(number)
        (tmp_path / "pages" / page.name).write_bytes(page.png())
        truth[page.name] = page.truth
    read(tmp_path / "pages", "--form", METER, "--release", ROOT / "exported" / "digits", "-o", tmp_path / "results")
    answered = review_truly(tmp_path / "results", truth, tmp_path / "labelled")
    assert answered > PAGES / 2
    crops = list((tmp_path / "labelled").glob("U+*/*.png"))
    assert len(crops) > 3 * answered
    words = [
        "renew",
        run_dir,
        "--new-data",
        tmp_path / "labelled",
        "-o",
        tmp_path / "renewed",
        "--epochs",
        "2",
        "--json",
    ]
    done = CliRunner().invoke(train, [str(word) for word in words])
    report = json.loads(done.stdout)
    # Whether so few show a gain is the paired test's to say; that it was asked about these very crops is what counts.
    assert done.exit_code == (0 if report["promoted"] else 1), done.output
    used = report["new_data"]
    assert used["train"] + used["validation"] + used["test"] == len(crops)
    assert report["on_new"]["n"] == used["test"]
    assert report["on_old"]["n"] == 10_000
