"""How a release's plans are to be built <-> `build.json`: the device that builds repeats what was chosen elsewhere."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from pydantic import Field, ValidationError

from hwr_export.engine.options import DEFAULT_OPTIONS, BuildOptions
from hwr_export.errors import ReleaseError
from hwr_export.files import json_bytes
from hwr_export.release import BUILD, Change, Release
from hwr_export.spec import Strict, first_problem


class BuildRecipe(Strict):
    """`opt_batches` and `max_batch` as of `trt`; precision is in the ONNX files."""

    schema_version: Literal[1] = Field(1, alias="schema")
    opt_batches: tuple[int, ...] = ()
    max_batch: int | None = None
    options: BuildOptions = DEFAULT_OPTIONS

    @classmethod
    def of(cls, opt_batches: Sequence[int], max_batch: int | None, options: BuildOptions) -> "BuildRecipe":
        """Return the recipe of a build, without what its plan does not depend on."""
        lasting = replace(options, timing_cache=None, log_level=None)
        return cls(opt_batches=tuple(opt_batches), max_batch=max_batch, options=lasting)

    def document(self) -> dict[str, Any]:
        """Return it as JSON."""
        head = {"schema": 1, "opt_batches": list(self.opt_batches), "max_batch": self.max_batch}
        return head | {"options": self.options.document()}

    def choices(self) -> dict[str, Any]:
        """Return all that was chosen, by name."""
        return {"opt_batches": list(self.opt_batches), "max_batch": self.max_batch} | self.options.document()


def read_recipe(release: Release) -> BuildRecipe:
    """Return a release's recipe, which is that of the defaults where it has none.

    Raises:
        ReleaseError: the file is changed, or is none that this version can read.
    """
    entry = release.entry(BUILD)
    if entry is None:
        return BuildRecipe()
    try:
        return BuildRecipe.model_validate(json.loads(release.read(entry)))
    except ValidationError as err:
        raise ReleaseError(
            f"{release.path / BUILD} is no build recipe this version can read: {first_problem(err)}; "
            "run trt with the options again"
        ) from err


def write_recipe(change: Change, recipe: BuildRecipe) -> None:
    """Keep how plans are built."""
    change.write(BUILD, json_bytes(recipe.document()), "build")
