"""A glance at a line of results finds what parsing it finds, whatever stands in names and paths."""

import json
import re
from contextlib import closing
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.errors import FormError
from hwr_export.scanner.form.results import FieldResult, PageResult
from hwr_export.scanner.review import results_folder
from hwr_export.scanner.review.referred import Referred
from hwr_export.scanner.review.results_folder import Folder, glance

NASTY = st.text(st.sampled_from('"\\accepted: false,{}[]né\u2028'), max_size=30)
FIELD = st.builds(
    lambda name, value, accepted, reason: FieldResult(name, value, 0.5, accepted, (reason,), (0, 0, 1, 1)),
    st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,9}", fullmatch=True),
    NASTY,
    st.booleans(),
    NASTY,
)


@given(NASTY, st.lists(FIELD, max_size=4), st.booleans(), st.booleans())
def test_a_glance_finds_what_parsing_finds(path: str, fields: list[FieldResult], plain: bool, compact: bool) -> None:
    document = PageResult("read", path, 0.3, 1.0, tuple(fields)).document(path, characters=True)
    origin = {"path": path, "number": 3, "of": 4, "size": 17, "mtime_ns": 123456789}
    separators = (",", ":") if compact else (", ", ": ")
    for said in (document, document | {"file": origin}):
        line = json.dumps(said, ensure_ascii=not plain, separators=separators).encode()
        with mock.patch.object(results_folder, "_PATH", re.compile(rb"never")):
            parsed = glance(line, "x")
        assert glance(line, "x") == parsed
        assert parsed.stamp == ("17 123456789" if "file" in said else "")


def test_keys_in_another_order_are_parsed(results: Path) -> None:
    lines = [json.loads(line) for line in (results / "results.jsonl").read_text().splitlines()]
    turned = [
        {
            "fields": [dict(reversed(list(f.items()))) for f in page["fields"]],
            **{k: page[k] for k in page if k != "fields"},
        }
        for page in lines
    ]
    with closing(Referred(Folder(results))) as found:
        before = [found[n][1].name for n in range(len(found))]
    (results / "results.jsonl").write_text("".join(json.dumps(page) + "\n" for page in turned))
    folder = Folder(results)
    found = Referred(folder)
    assert [found[n][1].name for n in range(len(found))] == before
    assert (found.pages, found.accepted) == (2, 14)
    page, _ = found[0]
    assert [found.number(page.key(name)) for name in ("customer", "due")] == [0, None]
    found.close()


def test_results_that_are_written_anew_under_the_review_are_said(results: Path) -> None:
    found = Referred(Folder(results))
    lines = (results / "results.jsonl").read_text().splitlines(keepends=True)
    (results / "results.jsonl").write_text(lines[1] + lines[0])
    with pytest.raises(FormError, match=r"is not as it was when the review began; end the review, and start it anew"):
        found[1]
    found.close()
