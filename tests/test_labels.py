import pytest

from hwr_export.errors import UsageError
from hwr_export.labels import DIGITS, check_labels, labels_sha256


def test_digits_are_in_class_order() -> None:
    assert [DIGITS.index(c) for c in "0123456789"] == list(range(10))


@pytest.mark.parametrize(
    ("labels", "message"), [("", "at least two"), ("7", "at least two"), ("0120", "'0' more than once")]
)
def test_unusable_label_sets_are_refused(labels: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_labels(labels)


def test_order_changes_the_hash() -> None:
    assert labels_sha256("01") != labels_sha256("10")
