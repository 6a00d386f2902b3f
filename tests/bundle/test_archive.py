"""Archives of ours: the same bytes from the same release, read back whole, tampering named, no trace of a refusal."""

import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import given
from hypothesis import strategies as st

from hwr_export.bundle.archive import _header, check, extract, pack, read_index, unpack
from hwr_export.bundle.index import INDEX, MAX_BYTES, VERSION, BundleFile, BundleIndex, version_in
from hwr_export.errors import BundleError, UsageError
from hwr_export.evidence import evidence, verdict_in
from hwr_export.files import sha256_bytes, sha256_file
from hwr_export.goldens import Goldens
from hwr_export.release import Release
from tests.bundle.hostile import Parts
from tests.bundle.test_chain import with_engine
from tests.conftest import one_json


def test_a_packed_release_comes_back_as_one(digits: Release, archive: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    index = extract(archive, out)
    release = Release.open(out)
    assert all(status.ok for status in release.verify())
    assert release.spec == digits.spec
    assert {f.path for f in release.manifest.files} == {f.path for f in index.files} - {"manifest.json"}
    assert verdict_in(evidence(release, "parity.json"), "onnxruntime", "fp32") == "PASS"
    assert len(Goldens.from_bytes(release.read(release.entry("goldens.npz")), "goldens")) == 256
    assert not release.by_role("weights")
    assert (index.name, index.version, index.version_number) == ("digits", "1.4.0", (1, 4, 0))
    assert index.release_sha256 == digits.manifest_sha256
    assert read_index(archive) == check(archive) == index


def test_the_same_release_gives_the_same_bytes(digits: Release, packed: bytes, tmp_path: Path) -> None:
    for file in digits.path.iterdir():
        os.utime(file, (1, 1))
        file.chmod(0o600)
    again = tmp_path / "elsewhere" / "renamed.hwr"
    again.parent.mkdir()
    moved = digits.path.rename(tmp_path / "moved")
    pack(Release.open(moved), again, "1.4.0")
    assert again.read_bytes() == packed
    pack(Release.open(moved), again, "1.4.1")
    assert again.read_bytes() != packed


def test_any_tar_reads_it(archive: Path) -> None:
    with tarfile.open(archive, "r:") as tar:
        members = tar.getmembers()
    assert [m.name for m in members] == [INDEX, *(f.path for f in read_index(archive).files)]
    assert all(m.isreg() and m.mode == 0o644 and not (m.mtime or m.uid or m.gid or m.uname) for m in members)
    assert all(_header(m.name, m.size) == m.tobuf(tarfile.USTAR_FORMAT) for m in members)


def test_plans_travel_with_their_sidecars(digits: Release, tmp_path: Path) -> None:
    pack(with_engine(digits), tmp_path / "e-1.0.0.hwr")
    unpack(tmp_path / "e-1.0.0.hwr", tmp_path / "out")
    release = Release.open(tmp_path / "out")
    assert release.read(release.by_role("engine")[0]) == b"vtrt a plan"


def test_a_broken_chain_is_not_packed_and_leaves_nothing(digits: Release, tmp_path: Path) -> None:
    (digits.path / "model.int8.onnx").write_bytes(b"ONNX")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(BundleError, match=r"broken at model\.int8\.onnx: changed"):
        pack(digits, tmp_path / "digits-1.0.0.hwr")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "version", "message"),
    [
        ("digits.hwr", None, "has no version in its name: call it NAME-1.4.0.hwr or give --version 1.4.0"),
        ("digits-1.4.hwr", None, "has no version in its name"),
        ("digits.hwr", "1.4", "--version 1.4 is none; expected three numbers"),
        ("digits.hwr", "1.4.0\n", "is none; expected three numbers"),
        ("digits-1.4.0.hwr", "1.5.0", "--version 1.5.0 contradicts the name digits-1.4.0.hwr"),
    ],
)
def test_a_version_is_three_numbers_said_once(
    digits: Release, tmp_path: Path, name: str, version: str | None, message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        pack(digits, tmp_path / name, version)


@given(st.from_regex(rf"\A{VERSION}\Z"))
def test_versions_in_names_are_found_and_compare_as_numbers(version: str) -> None:
    assert version_in(f"digits-{version}.hwr") == version
    assert version_in(f"digits-{version}.tar") is None


def test_versions_compare_as_numbers() -> None:
    row = BundleFile(path="manifest.json", sha256="0" * 64, size_bytes=0)
    versions = ["1.9.0", "1.10.0", "0.99.99", "2.0.0"]
    indexes = [BundleIndex.of("digits", version, "0" * 64, [row]) for version in versions]
    assert [i.version for i in sorted(indexes, key=lambda i: i.version_number)] == [
        "0.99.99",
        "1.9.0",
        "1.10.0",
        "2.0.0",
    ]


PATHS = st.from_regex(r"\A[a-z0-9_-][a-z0-9._-]{0,8}(/[a-z0-9_-][a-z0-9._-]{0,8}){0,2}\Z")


@given(st.lists(st.tuples(PATHS, st.integers(0, MAX_BYTES // 4096)), max_size=12))
def test_an_index_is_written_in_one_way_only(rows: list[tuple[str, int]]) -> None:
    files = [BundleFile(path=path, sha256="a" * 64, size_bytes=size) for path, size in [("manifest.json", 1), *rows]]
    try:
        index = BundleIndex.of("digits", "1.0.0", "0" * 64, files)
    except BundleError:
        paths = [file.path for file in files]
        folders = {path[:i] for path in paths for i, c in enumerate(path) if c == "/"}
        assert len(set(paths)) < len(paths) or folders & {*paths, INDEX} or INDEX in paths or any(
            path.endswith(".json") for path, _ in rows
        )  # fmt: skip
    else:
        assert BundleIndex.from_json(index.to_json(), "here") == index


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("model.fp32.onnx", r"model\.fp32\.onnx"),
        ("model.int8-cpu.onnx", r"model\.int8-cpu\.onnx"),
        ("manifest.json", r"manifest\.json \(it holds the label set\)"),
        ("checkpoint.json", r"checkpoint\.json \(it holds the label set\)"),
        ("goldens.npz", r"goldens\.npz"),
        ("parity.json", r"parity\.json"),
        ("engines/model.fp32.sm86.engine", r"engines/model\.fp32\.sm86\.engine"),
    ],
)
def test_one_bit_of_a_file_is_enough_and_is_named(digits: Release, tmp_path: Path, path: str, says: str) -> None:
    archive, out = tmp_path / "digits-1.0.0.hwr", tmp_path / "out"
    pack(with_engine(digits), archive)
    data = bytearray(archive.read_bytes())
    content = Parts.of(bytes(data)).files[path]
    data[data.find(content) + len(content) // 2] ^= 1
    archive.write_bytes(bytes(data))
    for read in (check, lambda a: unpack(a, out)):
        with pytest.raises(BundleError, match=rf"{says} is not what was packed \(sha256 .* tampered with"):
            read(archive)
    assert not out.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["digits", "digits-1.0.0.hwr"]


def test_an_archive_that_is_replaced_between_two_readings_is_refused(
    archive: Path, digits: Release, tmp_path: Path
) -> None:
    index = check(archive)
    pack(digits, archive, "1.4.0")
    unpack(archive, tmp_path / "same", index)
    pack(digits, tmp_path / "digits-9.9.9.hwr")
    shutil.move(tmp_path / "digits-9.9.9.hwr", archive)
    with pytest.raises(BundleError, match="was replaced by another archive while it was being read"):
        unpack(archive, tmp_path / "out", index)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", [Path.mkdir, Path.touch, lambda p: p.symlink_to(p.parent)])
def test_what_is_there_is_not_unpacked_into(archive: Path, tmp_path: Path, make: Callable[[Path], object]) -> None:
    make(tmp_path / "out")
    with pytest.raises(UsageError, match="is there already; choose another -o, nothing was changed"):
        unpack(archive, tmp_path / "out")


def test_extract_takes_an_empty_directory_alone(archive: Path, tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine").write_text("kept")
    (tmp_path / "link").symlink_to(full)
    for into in (full, tmp_path / "link", tmp_path / "absent", archive):
        with pytest.raises(UsageError, match="is no empty directory"):
            extract(archive, into)
    assert (full / "mine").read_text() == "kept"


def test_a_full_disk_leaves_nothing(archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []

    def full(fd: int) -> None:
        synced.append(fd)
        if len(synced) == 4:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        unpack(archive, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == [archive.name]


@pytest.mark.parametrize("kind", ["absent", "folder", "pipe", "device"])
def test_what_is_no_plain_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.hwr"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        path = Path("/dev/zero")
    with pytest.raises(BundleError, match="cannot be read: No such file" if kind == "absent" else "is no plain file"):
        read_index(path)


def test_a_hole_costs_no_more_than_its_index_declares(packed: bytes, tmp_path: Path) -> None:
    """An archive of a terabyte that takes no room on the disk: refused by its length, before a byte of it is read."""
    path = tmp_path / "hole.hwr"
    path.write_bytes(packed)
    os.truncate(path, 1 << 40)
    with pytest.raises(BundleError, match=r"has 1,099,511,627,776 bytes, its index makes it"):
        check(path)


def test_pack_and_unpack_from_the_command_line(
    digits: Release, tmp_path: Path, packed: bytes, hwr: Callable[..., Result]
) -> None:
    archive = tmp_path / "digits-1.4.0.hwr"
    done = hwr("pack", digits.path, "-o", archive)
    assert done.exit_code == 0, done.output
    assert "Packed into" in done.stdout
    assert archive.read_bytes() == packed
    told = one_json(hwr("pack", digits.path, "-o", archive, "--json").stdout)
    assert told["sha256"] == sha256_file(archive) == sha256_bytes(packed)
    assert told["version"] == "1.4.0"
    done = hwr("unpack", archive, "-o", tmp_path / "out")
    assert done.exit_code == 0, done.output
    assert "its signature was not looked at" in done.stdout
    assert hwr("show", tmp_path / "out").exit_code == 0
    archive.write_bytes(packed + b"x")
    done = hwr("unpack", archive, "-o", tmp_path / "other")
    assert done.exit_code == 1
    assert "something was appended" in done.stderr
