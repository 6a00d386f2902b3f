"""Lines are whole and there once, whatever tore the file."""

import errno
import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.scanner.sinks import SinkUnavailableError
from hwr_export.scanner.sinks.jsonl import JsonlSink
from hwr_export.scanner.sinks.settings import JsonlConfig


def config(path: Path, max_file_bytes: int = 1 << 20) -> JsonlConfig:
    return JsonlConfig(kind="jsonl", name="archive", directory=path, max_file_bytes=max_file_bytes)


def result(key: str) -> dict[str, object]:
    return {"page": {"id": key}, "fields": [{"value": "7\n\u2028"}]}


def lines(path: Path) -> list[str]:
    """Return the pages in the folder, in order; every line must be whole."""
    data = b"".join(file.read_bytes() for file in sorted(path.glob("results-*.jsonl")))
    assert not data or data.endswith(b"\n")
    return [json.loads(line)["page"]["id"] for line in data.split(b"\n")[:-1]]


def test_files_are_numbered_and_only_the_last_grows(tmp_path: Path) -> None:
    sink = JsonlSink(config(tmp_path / "out", max_file_bytes=200))
    for i in range(10):
        sink.deliver(result(f"page-{i}"), f"page-{i}")
    files = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert files == [f"results-{i:06d}.jsonl" for i in range(1, len(files) + 1)]
    assert len(files) > 2
    assert lines(tmp_path / "out") == [f"page-{i}" for i in range(10)]
    # Whoever collects takes what is finished and leaves the last.
    for name in files[:-1]:
        (tmp_path / "out" / name).unlink()
    again = JsonlSink(config(tmp_path / "out", max_file_bytes=200))
    for i in range(8, 12):
        again.deliver(result(f"page-{i}"), f"page-{i}")
    assert min(path.name for path in (tmp_path / "out").iterdir()) == files[-1]
    assert lines(tmp_path / "out")[-2:] == ["page-10", "page-11"]


@settings(max_examples=30)
@given(st.integers(0, 400), st.binary(max_size=5))
def test_whatever_a_crash_left_each_page_has_one_whole_line(
    tmp_path_factory: pytest.TempPathFactory, kept: int, tail: bytes
) -> None:
    """The file is cut anywhere and followed by anything short; the spool offers again what it has no mark of."""
    folder = tmp_path_factory.mktemp("torn")
    sink = JsonlSink(config(folder))
    for key in "abcdef":
        sink.deliver(result(key), key)
    (file,) = folder.iterdir()
    whole = file.read_bytes()
    file.write_bytes(whole[:kept] + tail.replace(b"\n", b"") if kept < len(whole) else whole + tail.replace(b"\n", b""))
    again = JsonlSink(config(folder))
    for key in "abcdefg":
        again.deliver(result(key), key)
    assert sorted(lines(folder)) == list("abcdefg")


def test_space_that_a_power_cut_left_unwritten_is_no_line(tmp_path: Path) -> None:
    JsonlSink(config(tmp_path)).deliver(result("a"), "a")
    with (tmp_path / "results-000001.jsonl").open("ab") as file:
        file.write(b"\0" * 70_000 + b'"}\n')
    sink = JsonlSink(config(tmp_path))
    sink.deliver(result("b"), "b")
    assert lines(tmp_path) == ["a", "b"]


def test_lines_of_others_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "results-000007.jsonl").write_bytes(b'a note\n[1]\n{"page": 3}\n')
    JsonlSink(config(tmp_path)).deliver(result("a"), "a")
    assert (tmp_path / "results-000007.jsonl").read_bytes().startswith(b'a note\n[1]\n{"page": 3}\n{"page":{"id":"a"}')


@pytest.mark.parametrize("failing", ["write", "fsync"])
def test_a_disk_that_refuses_leaves_no_part_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    sink = JsonlSink(config(tmp_path))
    sink.deliver(result("a"), "a")
    real = os.write

    def half(fd: int, data: bytes) -> int:
        if len(data) > 20:
            return real(fd, bytes(data[:20]))
        raise OSError(errno.ENOSPC, "No space left on device")

    def refused(fd: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, {"write": half, "fsync": refused}[failing])
        for _ in range(2):
            with pytest.raises(SinkUnavailableError, match=r"cannot write \((No space|Input/output)"):
                sink.deliver(result("b"), "b")
            assert lines(tmp_path) == ["a"]
    sink.deliver(result("b"), "b")
    assert lines(tmp_path) == ["a", "b"]
