import hashlib
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.files import atomic_file, json_bytes, sha256_bytes, sha256_file, write_atomic, write_together


def test_hashes_agree_with_hashlib(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"digits")
    assert sha256_file(tmp_path / "a") == sha256_bytes(b"digits") == hashlib.sha256(b"digits").hexdigest()


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda v: st.lists(v) | st.dictionaries(st.text(), v)
    )
)
def test_json_round_trip(value: object) -> None:
    assert json.loads(json_bytes(value)) == value


def test_numbers_stand_in_a_row() -> None:
    document = {"rows": [[1, -2.5], [3e-7, 4]], "mixed": [1, None], "text": ["[\n1\n]"], "none": []}
    assert json_bytes(document).decode() == (
        '{\n  "rows": [\n    [1, -2.5],\n    [3e-07, 4]\n  ],\n  "mixed": [\n    1,\n    null\n  ],\n'
        '  "text": [\n    "[\\n1\\n]"\n  ],\n  "none": []\n}\n'
    )


def test_json_has_no_nan() -> None:
    with pytest.raises(ValueError, match="Out of range"):
        json_bytes({"loss": float("nan")})


def test_a_failed_write_keeps_the_previous_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "kept"
    write_atomic(target, b"old")

    def no_space(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match="No space"):
        write_atomic(target, b"new")
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["kept"]


def test_files_that_belong_together_change_together_or_not_at_all(tmp_path: Path) -> None:
    plan, sidecar = tmp_path / "a.engine", tmp_path / "a.engine.json"
    write_together({plan: b"old", sidecar: b"old"})
    with pytest.raises(TypeError):
        write_together({plan: b"new", sidecar: None})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.engine": b"old", "a.engine.json": b"old"}
    write_together({plan: b"new", sidecar: b"new"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == {"a.engine": b"new", "a.engine.json": b"new"}


def test_a_file_written_in_parts_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "archive"
    path.write_bytes(b"before")
    with pytest.raises(RuntimeError, match="stopped"), atomic_file(path) as file:
        file.write(b"half")
        raise RuntimeError("stopped")
    assert path.read_bytes() == b"before"
    with atomic_file(path) as file:
        file.write(b"half")
        assert path.read_bytes() == b"before"
        file.write(b" and half")
    assert path.read_bytes() == b"half and half"
    assert list(tmp_path.iterdir()) == [path]
