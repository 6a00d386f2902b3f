"""A form and the models that read it: a page, grey uint8 (H, W) -> its fields, each accepted or left to a person.

One batch a model for a whole page. A page that is not this form has no fields and a reason; a field is accepted only
where the release says from which probability on, and nothing speaks against it.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from hwr_export.errors import FormError
from hwr_export.release import FP32, Release
from hwr_export.runners import Runner, reader_runner
from hwr_export.scanner.form.acceptance import FAMILIES, Acceptance, load_acceptance, reader_of
from hwr_export.scanner.form.cells import Cell, FieldCells, find_cells
from hwr_export.scanner.form.decode import Floats, Reading, decode, emissions, first_box
from hwr_export.scanner.form.definition import Form
from hwr_export.scanner.form.fields import CheckboxField, FormField, WrittenField
from hwr_export.scanner.form.layout import lay_out
from hwr_export.scanner.form.registration import PageRefused, register
from hwr_export.scanner.form.results import Alternative, FieldResult, PageResult, Written
from hwr_export.scanner.form.rules import agreed
from hwr_export.scanner.page import Grey
from hwr_export.spec import PROBABILITIES

YES, NO = "yes", "no"
READINGS = 4  # of a field, that its rules choose among
UNDECIDED_MARK = 0.9  # probability, below which a checkbox is neither ticked nor not


@dataclass(frozen=True)
class Model:
    """What reads characters, and from when on its answers about fields are accepted."""

    runner: Runner
    acceptance: Acceptance | None = None

    @classmethod
    def of(cls, release: Release, runner: Runner) -> "Model":
        """Return a release's model that runs already."""
        return cls(runner, load_acceptance(release))


@dataclass(frozen=True)
class _Read:
    """What was read of one field so far; `probability` belongs to `readings[0]`."""

    readings: list[Reading]
    reasons: tuple[str, ...]
    characters: Floats | None = None  # float64 (N, characters of the field), as `emissions` returns them


class FormReader:
    """Reads pages of one form. Not for several threads at once."""

    def __init__(self, form: Form, models: Sequence[Model]) -> None:
        if len({model.runner.spec.image_shape for model in models}) > 1:
            raise FormError("the releases take images of different sizes; give releases of one size")
        self.form = form
        self._layout = lay_out(form)
        self._models = tuple(models)
        self._shape = models[0].runner.spec.image_shape if models else (28, 28)
        label_sets = [model.runner.spec.labels for model in models]
        self._reads = {field.name: reader_of(field, label_sets) for field in form.fields}
        self._least = {field.name: self._least_of(field) for field in form.fields}

    def read(self, page: Grey) -> PageResult:
        """Return what stands on a page; a page that cannot be read comes back refused, with the reason.

        Raises:
            RunnerError: a model's backend failed.
        """
        start_ns = time.perf_counter_ns()
        try:
            registration = register(page, self._layout)
            found = find_cells(page, registration, self._layout, self._shape)
        except PageRefused as err:
            return PageResult("refused", f"{err.code}: {err}", None, _ms(start_ns))
        answers = [self._recognise(i, found) for i in range(len(self._models))]
        read = {
            field.name: self._field(field, cells, answers) for field, cells in zip(self.form.fields, found, strict=True)
        }
        written = {f.name: read[f.name].readings for f in self.form.fields if not isinstance(f, CheckboxField)}
        agreeing, broken = agreed(self.form, written)
        fields = []
        for field, cells in zip(self.form.fields, found, strict=True):
            r = read[field.name]
            readings = agreeing.get(field.name, r.readings)
            reasons = (*r.reasons, broken[field.name]) if field.name in broken else r.reasons
            fields.append(self._result(field, cells, replace(r, readings=readings, reasons=reasons)))
        return PageResult("read", "", registration.residual_px, _ms(start_ns), tuple(fields))

    def _least_of(self, field: FormField) -> float | None:
        """Return from which probability on a field is accepted, None where its release does not say it."""
        number = self._reads[field.name]
        acceptance = None if number is None else self._models[number].acceptance
        return None if acceptance is None else acceptance.least(FAMILIES[field.kind])

    def _recognise(self, number: int, found: Sequence[FieldCells]) -> dict[str, npt.NDArray[np.float32]]:
        """Return a model's probabilities, float32 (N, classes), for every field it reads; rows of empty boxes are 0."""
        runner = self._models[number].runner
        mine = [
            (field.name, cells)
            for field, cells in zip(self.form.fields, found, strict=True)
            if self._reads[field.name] == number
        ]
        images = [cell.image for _, cells in mine for cell in cells.cells if cell.image is not None]
        rows = iter(runner.infer_all(np.stack(images))[PROBABILITIES] if images else ())
        nothing = np.zeros(len(runner.spec.labels), dtype=np.float32)
        return {
            name: np.array([nothing if cell.image is None else next(rows) for cell in cells.cells]).reshape(
                -1, len(runner.spec.labels)
            )
            for name, cells in mine
        }

    def _field(
        self, field: FormField, cells: FieldCells, answers: Sequence[Mapping[str, npt.NDArray[np.float32]]]
    ) -> _Read:
        if isinstance(field, CheckboxField):
            return _checkbox(cells)
        number = self._reads[field.name]
        if number is None:
            empty = float(np.prod([cell.blank for cell in cells.cells]))
            return _Read([Reading("", "", empty)], () if empty > UNDECIDED_MARK else ("not-readable",))
        blanks = np.array([cell.blank for cell in cells.cells], dtype=np.float64)
        characters = emissions(answers[number][field.name], self._models[number].runner.spec.labels, field)
        readings = decode(field, characters, blanks, READINGS)
        reasons = [] if readings else ["no-valid-reading"]
        reasons += ["struck-out"] if any(cell.struck for cell in cells.cells) else []
        reasons += ["outside-box"] if cells.stray else []
        return _Read(readings or [Reading("", "", 0.0)], tuple(reasons), characters)

    def _result(self, field: FormField, cells: FieldCells, read: _Read) -> FieldResult:
        best, *others = read.readings
        reasons = list(read.reasons)
        if field.required and best.value in ("", NO) and not {"not-readable", "no-valid-reading"} & set(reasons):
            reasons.append("required-empty")
        least = self._least[field.name]
        if isinstance(field, CheckboxField):
            least = UNDECIDED_MARK if least is None else max(least, UNDECIDED_MARK)
        if least is None and "not-readable" not in reasons:
            reasons.append("not-calibrated")
        elif least is not None and best.probability < least and not reasons:
            reasons.append("doubtful-mark" if isinstance(field, CheckboxField) else "doubtful")
        return FieldResult(
            field.name,
            best.value,
            best.probability,
            not reasons,
            tuple(dict.fromkeys(reasons)),
            cells.box_px,
            tuple(Alternative(r.value, r.probability) for r in others),
            () if isinstance(field, CheckboxField) else _written(field, best, cells.cells, read.characters),
        )


@contextmanager
def open_form_reader(form: Form, releases: Sequence[Release], threads: int = 1) -> Iterator[FormReader]:
    """Open releases' models and read a form with them; a field is read by the first that knows its characters.

    Raises:
        ReleaseError: a model is missing or changed.
        UsageError: no runtime is installed.
        FormError: the releases do not go together.
    """
    with ExitStack() as opened:
        models = [
            Model.of(r, opened.enter_context(reader_runner(r.read(r.onnx(FP32)), r.spec, threads))) for r in releases
        ]
        yield FormReader(form, models)


def _checkbox(cells: FieldCells) -> _Read:
    ticked = cells.ticked or 0.0
    readings = [Reading(YES, "", ticked), Reading(NO, "", 1 - ticked)]
    return _Read(sorted(readings, key=lambda r: -r.probability), ())


def _written(
    field: WrittenField, best: Reading, cells: Sequence[Cell], characters: Floats | None
) -> tuple[Written, ...]:
    """Return what the chosen reading says of every box."""
    first = first_box(field, best.text, len(cells))
    found = []
    for i, cell in enumerate(cells):
        if not first <= i < first + len(best.text):
            found.append(Written(None, cell.blank, cell.box_px))
            continue
        label = best.text[i - first]
        seen = 0.0 if characters is None else float(characters[i, field.alphabet.index(label)])
        found.append(Written(label, seen * (1 - cell.blank), cell.box_px))
    return tuple(found)


def _ms(start_ns: int) -> float:
    return (time.perf_counter_ns() - start_ns) / 1e6
