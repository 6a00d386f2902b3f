"""Archives made to do harm: refused, each of them, with nothing written anywhere and little memory taken."""

import json
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hwr_export.bundle.archive import extract, unpack
from hwr_export.bundle.index import BundleIndex
from hwr_export.bundle.signature import sign, verify
from hwr_export.errors import BundleError
from tests.bundle.conftest import DIGITS, Workshop
from tests.bundle.hostile import END, Parts, hostile, sealed
from tests.conftest import ROOT

LIMIT_BYTES = 300 << 20
# Everything in one process of its own: the most that any of them costs, the interpreter and pydantic included.
REFUSE_ALL = """
import json, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit}))
from hwr_export.bundle.archive import check, extract, read_index
from hwr_export.errors import BundleError
folder, told = Path(sys.argv[1]), {{}}
for archive in sorted(folder.glob("*.hwr")):
    into = folder / "slot"
    for read in (read_index, check, lambda archive: extract(archive, into)):
        try:
            read(archive)
        except BundleError as err:
            told[archive.name] = str(err)
    left = sorted(map(str, into.iterdir()))
    if left or archive.name not in told:
        sys.exit(f"{{archive.name}}: accepted, or left {{left}}")
status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
print(json.dumps({{"told": told, "peak": int(status["VmHWM"].split()[0]) * 1024}}))
"""


def snapshot(folder: Path) -> dict[str, bytes | str]:
    return {
        str(p.relative_to(folder)): p.read_bytes() if p.is_file() and not p.is_symlink() else "other"
        for p in sorted(folder.rglob("*"))
    }


def test_none_is_accepted_none_writes_and_none_takes_much_memory(packed: bytes, tmp_path: Path) -> None:
    """A hundred and more classes of harm; what they aim at, names above the slot, is looked for afterwards."""
    archives = hostile(packed)
    assert len(archives) >= 150
    assert all(data != packed for _, data in archives)
    inner = tmp_path / "device" / "root"
    (inner / "slot").mkdir(parents=True)
    for i, (_, data) in enumerate(archives):
        (inner / f"{i:03}.hwr").write_bytes(data)
    (inner / "model.fp32.onnx").write_bytes(b"of the slot that runs")
    before = snapshot(tmp_path)
    script = REFUSE_ALL.format(limit=LIMIT_BYTES)
    done = subprocess.run(
        [sys.executable, "-c", script, str(inner)], capture_output=True, text=True, check=False, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found["told"]) == len(archives)
    assert found["peak"] < LIMIT_BYTES
    assert snapshot(tmp_path) == before
    assert not Path("/tmp/escaped").exists()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("symbolic link to /etc/passwd", "or something was appended"),
        ("in place, of type '2'", r"does not hold MODEL_CARD\.md .*: found a symbolic link 'MODEL_CARD\.md'"),
        ("in place, of type '1'", "found a hard link"),
        ("in place, of type '3'", "found a character device"),
        ("in place, of type 'x'", "found a pax header"),
        ("in place, of type 'S'", "found a sparse file"),
        ("in place, named ../escaped", r"found another header, '\.\./escaped'"),
        ("two members exchanged", "found another header, 'acceptance.json'"),
        ("an index of 300 KB", "an index of 300,000 bytes; 262,144 are the most"),
        ("padding that hides something", "hides something after bundle.json"),
        ("an end that hides something", "does not end where its index ends"),
        ("deep lists", "recursion limit exceeded"),
        ("a key twice", r"bundle\.json is not written as `hwr-export pack` writes it"),
        ("a file called 'CHECKPOINT.json'", "differs from another name by case alone"),
        ("a file called 'checkpoint.json/x'", "is a file and a folder at once"),
        ("sizes that are too much together", "an archive has 1,073,741,824 at most"),
        ("a document of a gigabyte", "such a document has 2,097,152 at most"),
        ("a file that the manifest does not know", "manifest.json lists other files than bundle.json"),
        ("a manifest of deep lists", r"manifest\.json is not JSON: maximum recursion depth"),
        ("labels in another order", "the label set is '0123456789' in one and '1023456789' in the other"),
        ("another model", r"between model\.fp32\.onnx and parity\.json"),
        ("other goldens without their verdict", r"broken at parity\.json: stale"),
        ("one cell FAIL", r"model\.fp16\.onnx on onnxruntime: FAIL"),
    ],
)
def test_what_is_wrong_is_said(packed: bytes, tmp_path: Path, name: str, message: str) -> None:
    path = tmp_path / "a.hwr"
    path.write_bytes(dict(hostile(packed))[name])
    with pytest.raises(BundleError, match=message) as caught:
        unpack(path, tmp_path / "out")
    assert str(path) in str(caught.value)
    assert ".out." not in str(caught.value)  # where it was unpacked to is of no concern
    assert sorted(tmp_path.iterdir()) == [path]


@dataclass
class Place:
    """A directory to unpack into, and the signature of the archive that all others pretend to be."""

    archive: Path
    into: Path
    workshop: Workshop
    index: BundleIndex

    def refused(self, data: bytes) -> None:
        """Refuse what is not the archive itself by a sentence, before and after unpacking; leave nothing behind.

        Who made it is in the signature alone: an archive of the same files that gives itself another version, or whose
        manifest says something else that nothing contradicts, is a good one until it is verified.
        """
        self.archive.write_bytes(data)
        with pytest.raises(BundleError):
            verify(self.archive, self.workshop.trusted)
        try:
            found = extract(self.archive, self.into)
        except BundleError:
            assert not any(self.into.iterdir())
            return
        assert found != self.index
        assert {file.path for file in {*found.files} ^ {*self.index.files}} <= {"manifest.json"}
        assert found.name == self.index.name
        shutil.rmtree(self.into)
        self.into.mkdir()


@pytest.fixture(scope="module")
def place(packed: bytes, tmp_path_factory: pytest.TempPathFactory) -> Place:
    folder = tmp_path_factory.mktemp("fuzz")
    archive, into, workshop = folder / "a.hwr", folder / "slot", Workshop(folder / "workshop")
    archive.write_bytes(packed)
    into.mkdir()
    workshop.trust_key()
    sign(archive, workshop.key_path)
    return Place(archive, into, workshop, verify(archive, workshop.trusted).index)


@settings(max_examples=200)
@given(st.data())
def test_bytes_changed_anywhere(packed: bytes, place: Place, data: st.DataObject) -> None:
    """The index and the headers are hit often, as they are a small part of the archive."""
    starts = [0, packed.find(b"manifest.json\0"), len(packed) - len(END)]
    changed = bytearray(packed)
    for _ in range(data.draw(st.integers(1, 4))):
        near = data.draw(st.sampled_from(starts)) + data.draw(st.integers(0, 1023))
        at = data.draw(st.one_of(st.just(near), st.integers(0, len(packed) - 1)))
        changed[min(at, len(packed) - 1)] ^= data.draw(st.integers(1, 255))
    if changed != packed:
        place.refused(bytes(changed))


@settings(max_examples=100)
@given(st.data())
def test_parts_cut_out_put_in_and_doubled(packed: bytes, place: Place, data: st.DataObject) -> None:
    a, b = sorted(data.draw(st.tuples(*[st.integers(0, len(packed))] * 2)))
    middle = data.draw(st.sampled_from([b"", packed[a:b] * 2, bytes(512), packed[:1024], bytes(b - a), b"\xff" * 7]))
    if (changed := packed[:a] + middle + packed[b:]) != packed:
        place.refused(changed)


@settings(max_examples=100)
@given(st.binary(max_size=4096))
def test_noise(place: Place, data: bytes) -> None:
    place.refused(data)


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.sampled_from(["bundle.json", "manifest.json", "parity.json", "checkpoint.json"]), ANY_JSON, st.randoms())
def test_documents_with_a_value_of_any_kind_anywhere(
    packed: bytes, place: Place, path: str, value: object, random_: random.Random
) -> None:
    """One value of a document replaced by another, and every hash made good again where a manifest allows it."""
    parts = Parts.of(packed)
    document = parts.index if path == "bundle.json" else json.loads(parts.files[path])
    here = document
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = random_.choice(keys)
        if not isinstance(here[key], dict | list) or not here[key] or random_.random() < 0.3:
            break
        here = here[key]
    if here[key] == value:
        return
    here[key] = value
    if path != "bundle.json":
        parts.files[path] = json.dumps(document).encode()
        parts.resealed()  # and not the manifest: it vouches for what was there before
    data = parts.tar() if path != "bundle.json" else _with_index(parts, document)
    place.refused(data)


def _with_index(parts: Parts, index: dict) -> bytes:
    return sealed(json.dumps(index, indent=2).encode() + b"\n", sorted(parts.files.items()))


def test_the_reference_release_is_what_the_fuzz_starts_from(packed: bytes, tmp_path: Path) -> None:
    """Otherwise all of the above would be refused for a reason of no interest."""
    path = tmp_path / "a.hwr"
    path.write_bytes(packed)
    unpack(path, tmp_path / "out")
    kept = tmp_path / "out" / "model.fp32.onnx"
    assert kept.read_bytes() == (DIGITS / "model.fp32.onnx").read_bytes()
