import pytest

from hwr_export.errors import UsageError
from hwr_export.labels import ALPHANUMERIC, DIGITS, check_labels, labels_sha256, merged_cases


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


def test_look_alike_cases_make_the_47_classes_of_bymerge() -> None:
    merged = [ALPHANUMERIC[i] for i in merged_cases(ALPHANUMERIC)]
    assert len(set(merged)) == 47
    assert {a for a, b in zip(ALPHANUMERIC, merged, strict=True) if a != b} == set("cijklmopsuvwxyz")
    assert all(b == a.upper() for a, b in zip(ALPHANUMERIC, merged, strict=True) if a != b)


@pytest.mark.parametrize("labels", [DIGITS, "abcdefg", "ABCDEFGHIJ"])
def test_one_case_alone_is_not_merged(labels: str) -> None:
    assert merged_cases(labels) == list(range(len(labels)))
