import inspect
import re

import pytest

from hwr_export import errors
from hwr_export.errors import HwrError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, HwrError)]


@pytest.mark.parametrize("error", CLASSES)
def test_the_tree_in_the_docstring_is_the_tree_in_the_code(error: type[HwrError]) -> None:
    drawn = re.search(rf"\b{error.__name__}\s+exit code (\d)", errors.__doc__ or "")
    assert drawn, f"{error.__name__} is not drawn in the docstring"
    assert int(drawn[1]) == error.exit_code


def test_every_failure_is_an_hwr_error() -> None:
    assert {c.__mro__[1] for c in CLASSES if c is not HwrError} == {HwrError}
