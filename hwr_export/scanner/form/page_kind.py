"""Pages of a form as a kind of pages of the scanner service: `[page] kind = "form"`.

A field that is not accepted is rejected there, with its reasons; a page that is refused has no fields but an error.
"""

from pathlib import Path
from typing import Literal

from pydantic import Field

from hwr_export.device.start import Active
from hwr_export.errors import ImageError, ScannerError
from hwr_export.scanner.form.results import FieldResult
from hwr_export.scanner.page import Character, Grey
from hwr_export.scanner.page import Field as PageField
from hwr_export.spec import Strict


class FormConfig(Strict):
    """Pages of one form, however they lie on the scanner."""

    kind: Literal["form"]
    form: Path = Field(description="The form's definition; `hwr-export form make` leaves it beside the sheet.")


class FormPageReader:
    """Reads pages of a form with the device's release.

    Raises:
        FormError: the definition is none.
        ScannerError: OpenCV or what else forms need is not installed.
    """

    def __init__(self, config: FormConfig, active: Active, threads: int = 1) -> None:
        try:
            import cv2

            from hwr_export.scanner.form.definition import load_form
            from hwr_export.scanner.form.reader import FormReader, Model
        except ModuleNotFoundError as err:
            raise ScannerError(f"pages of kind form need {err.name}: pip install 'hwr-export[forms]'") from err
        cv2.setNumThreads(threads)
        self._reader = FormReader(load_form(config.form), [Model.of(active.release, active.runner)])

    def read(self, page: Grey) -> list[PageField]:
        result = self._reader.read(page)
        if result.status != "read":
            raise ImageError(result.reason)
        return [page_field(field) for field in result.fields]


def page_field(field: FieldResult) -> PageField:
    """Return what the service says of a field."""
    rejected = not field.accepted
    characters = tuple(
        Character(w.label, 0.0 if w.label is None else w.confidence, rejected and w.label is not None, w.box)
        for w in field.written
    )
    return PageField(field.name, field.value or None, field.confidence, rejected, characters, field.reasons)
