"""Archives that somebody made to do harm, by class: each is refused, and what it is after is never done.

Seeded. Some break the container, some the index, some are whole archives of a release that lies; the last are what a
careful attacker without the key can make, with every hash recomputed.
"""

import gzip
import io
import json
import random
import re
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hwr_export.files import json_bytes, sha256_bytes

BLOCK = 512
END = bytes(2 * BLOCK)
INDEX = "bundle.json"


@dataclass
class Parts:
    """An archive taken apart: the index as a document, and the content of each file by path."""

    index: dict
    files: dict[str, bytes]
    names: dict[str, str] = field(default_factory=dict)  # what a header calls a file, where that is not its path

    @classmethod
    def of(cls, archive: bytes) -> "Parts":
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            content = {member.name: tar.extractfile(member).read() for member in tar.getmembers()}
        return cls(json.loads(content.pop(INDEX)), content)

    def resealed(self) -> "Parts":
        """The index as it would be for the files that are there now."""
        rows = [
            {"path": path, "sha256": sha256_bytes(data), "size_bytes": len(data)}
            for path, data in sorted(self.files.items())
        ]
        self.index["files"] = rows
        return self

    def vouched(self) -> "Parts":
        """The manifest as it would be for the files that are there now, and then the index."""
        manifest = json.loads(self.files["manifest.json"])
        fresh = {f["sha256"]: sha256_bytes(self.files[f["path"]]) for f in manifest["files"] if f["path"] in self.files}
        for entry in manifest["files"]:
            entry["sha256"] = fresh.get(entry["sha256"], entry["sha256"])
            entry["size_bytes"] = len(self.files.get(entry["path"], b""))
            entry["made_from"] = [fresh.get(sha256, sha256) for sha256 in entry["made_from"]]
        self.files["manifest.json"] = json_bytes(manifest)
        return self.resealed()

    def tar(self) -> bytes:
        return sealed(json_bytes(self.index), [(self.names.get(p, p), d) for p, d in sorted(self.files.items())])


def header(name: str, size: int, kind: bytes = b"0", link: str = "", **fields: int) -> bytes:
    """A header as tar has it, checksum included."""
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = size, kind, link
    for key, value in fields.items():
        setattr(info, key, value)
    return info.tobuf(tarfile.GNU_FORMAT)


def member(name: str, data: bytes, kind: bytes = b"0", link: str = "", **fields: int) -> bytes:
    return header(name, len(data), kind, link, **fields) + data + bytes(-len(data) % BLOCK)


def sealed(index: bytes, files: list[tuple[str, bytes]]) -> bytes:
    return ustar(INDEX, index) + b"".join(ustar(name, data) for name, data in files) + END


def ustar(name: str, data: bytes) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)


def with_checksum(block: bytes) -> bytes:
    blank = block[:148] + b" " * 8 + block[156:]
    return blank[:148] + b"%06o\0 " % sum(blank) + blank[156:]


# -- the container ---------------------------------------------------------------------------------------------------


def containers(good: bytes, rng: random.Random) -> Iterator[tuple[str, bytes]]:
    first = _first(good)
    victim = b"gotcha"
    yield from in_place(good)
    for name in (
        "../escaped",
        "a/../../escaped",
        "/tmp/escaped",
        "..",
        "./escaped",
        "a//escaped",
        "C:\\escaped",
        "\\..\\x",
    ):
        yield f"member named {name}", first + member(name, victim) + good[len(first) :]
        yield f"only a member named {name}", member(name, victim) + END
    for kind, what in ((b"1", "hard link"), (b"2", "symbolic link")):
        for target in ("/etc/passwd", "../../escaped", "model.fp32.onnx"):
            yield f"{what} to {target}", first + member("model.fp32.onnx", b"", kind, target) + good[len(first) :]
    through = member("engines", b"", b"2", "..") + member("engines/escaped", victim)
    yield "a file through a symbolic link", first + through + good[len(first) :]
    yield "the index is a symbolic link", member(INDEX, b"", b"2", "/etc/passwd") + good[len(first) :]
    for kind, what in (
        (b"3", "character device"),
        (b"4", "block device"),
        (b"6", "FIFO"),
        (b"5", "folder"),
        (b"7", "?"),
    ):
        yield what, first + member("node", b"", kind, devmajor=1, devminor=3) + good[len(first) :]
    pax = tarfile.TarInfo("x").create_pax_header({**tarfile.TarInfo("x").get_info(), "path": "../é" * 60}, "utf-8")
    yield "pax header before a member", first + pax + good[len(first) :]
    yield "pax header before the index", pax + good
    yield "pax header of four gigabytes", header("x", 4 << 30, b"x") + good
    yield "global pax header", header("g", 0, b"g") + good
    yield "GNU long name", first + member("././@LongLink", b"../" * 60 + b"escaped\0", b"L") + good[len(first) :]
    yield "GNU long link", first + member("././@LongLink", b"/etc/passwd\0", b"K") + good[len(first) :]
    yield "sparse member", first + _sparse("model.fp32.onnx", 1 << 40) + good[len(first) :]
    yield "a member of eight exabytes", first + header("model.fp32.onnx", (1 << 63) - 1) + good[len(first) :]
    yield "a size below zero", first + _with_size(b"\xff" * 12) + good[len(first) :]
    yield "an index of eight exabytes", header(INDEX, (1 << 63) - 1) + good[BLOCK:]
    yield "an index of eight gigabytes", header(INDEX, (8 << 30) - 1) + good[BLOCK:]
    yield "an index of 300 KB", sealed(b" " * 300_000, [])
    yield "setuid", first + member("model.fp32.onnx", b"", mode=0o4755) + good[len(first) :]
    yield "an owner", member(INDEX, good[BLOCK : BLOCK + 9], uid=1000) + END
    yield "every member twice", good[: -len(END)] + good[len(first) : -len(END)] + END
    yield "the index twice", first + good
    yield "the index last", good[len(first) : -len(END)] + first + END
    yield "two members exchanged", _exchanged(good)
    yield "one member left out", _exchanged(good, drop=True)
    yield "a second archive appended", good + good
    yield "one byte appended", good + b"\0"
    yield "a megabyte of zeros appended", good + bytes(1 << 20)
    yield "padding that hides something", _hidden(good)
    yield "an end that hides something", good[:-9] + b"something"
    yield "no end", good[: -len(END)]
    yield "gzip", gzip.compress(good, mtime=0)
    yield "gzip bomb", gzip.compress(bytes(8 << 20), mtime=0)
    yield "zip bomb", _zip({INDEX: bytes(8 << 20)})
    yield "zip with traversal", _zip({"../escaped": victim, INDEX: good[BLOCK:4096]})
    yield "tar and zip at once", good + _zip({"../escaped": victim})
    yield "nothing", b""
    yield "one block of zeros", bytes(BLOCK)
    yield "a megabyte of zeros", bytes(1 << 20)
    yield "noise", rng.randbytes(50_000)
    for _ in range(6):
        cut = rng.randrange(1, len(good))
        yield f"cut at {cut}", good[:cut]


def in_place(good: bytes) -> Iterator[tuple[str, bytes]]:
    """The header of one member replaced, so that the archive is as long as its index says."""
    at = len(_first(good))
    size = int(good[at + 124 : at + 135], 8)
    for name in ("../escaped", "/tmp/escaped", "MODEL_CARD.md/../../escaped", "model_card.md", "MODEL_CARD.md/"):
        yield f"in place, named {name}", good[:at] + header(name, size) + good[at + BLOCK :]
    for kind in b"1234567xgLKSVDNX\0":
        block = header("MODEL_CARD.md", size, bytes([kind]), "../escaped")
        yield f"in place, of type {chr(kind)!r}", good[:at] + block + good[at + BLOCK :]
    for found in (0, size - 1, size + 1, (1 << 33) - 1):
        yield f"in place, of {found} bytes", good[:at] + header("MODEL_CARD.md", found) + good[at + BLOCK :]
    for change in ({"mode": 0o4755}, {"uid": 1000}, {"mtime": 1}, {"uname": "root"}, {"devmajor": 1}):
        block = header("MODEL_CARD.md", size, b"0", **change)
        yield f"in place, with {change}", good[:at] + block + good[at + BLOCK :]


def _first(good: bytes) -> bytes:
    size = int(good[124:135], 8)
    return good[: BLOCK + size + -size % BLOCK]


def _with_size(size: bytes) -> bytes:
    block = header("model.fp32.onnx", 0)
    return with_checksum(block[:124] + size + block[136:])


def _sparse(name: str, real: int) -> bytes:
    block = bytearray(header(name, BLOCK, b"S"))
    block[386:398], block[398:410] = b"%011o\0" % 0, b"%011o\0" % BLOCK
    block[483:495] = b"\x80" + real.to_bytes(11, "big")
    return with_checksum(bytes(block)) + bytes(BLOCK)


def _exchanged(good: bytes, drop: bool = False) -> bytes:
    parts = Parts.of(good)
    files = sorted(parts.files.items())
    return sealed(json_bytes(parts.index), files[1:] if drop else [files[1], files[0], *files[2:]])


def _hidden(good: bytes) -> bytes:
    size = int(good[124:135], 8)
    assert size % BLOCK, "this index has no padding"
    return good[: BLOCK + size] + b"x" + good[BLOCK + size + 1 :]


def _zip(content: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    return buffer.getvalue()


# -- the index -------------------------------------------------------------------------------------------------------


def indexes(good: bytes) -> Iterator[tuple[str, bytes]]:
    def edited(change: Callable[[dict], object]) -> bytes:
        parts = Parts.of(good)
        change(parts.index)
        return parts.tar()

    def raw(index: bytes) -> bytes:
        return sealed(index, sorted(Parts.of(good).files.items()))

    text = json_bytes(Parts.of(good).index)
    yield "deep lists", raw(b"[" * 100_000)
    yield "deep objects", raw(b'{"files":' * 20_000 + b"0" + b"}" * 20_000)
    yield "no JSON", raw(b"MZ\x90\0")
    yield "no UTF-8", raw(text.replace(b"digits", b"\xff\xfe"))
    yield "a byte order mark", raw(b"\xef\xbb\xbf" + text)
    yield "spaces", raw(text + b" ")
    yield "null", raw(b"null\n")
    yield "a list", raw(b"[]\n")
    yield "a key twice", raw(text.replace(b'"version"', b'"version": "9.9.9",\n  "version"'))
    yield "an unknown key", edited(lambda index: index.update(post_install="rm -rf /"))
    yield "another schema", edited(lambda index: index.update(schema=2))
    yield "a name with a slash", edited(lambda index: index.update(name="../digits"))
    yield "an endless name", edited(lambda index: index.update(name="d" * 10_000))
    for version in ("1.4", "1.4.0.0", "01.4.0", "1.4.0-rc1", "../1.4.0", "1.4.9999999", "", 1.4, None, [1, 4, 0]):
        yield f"version {version!r}", edited(lambda index, version=version: index.update(version=version))
    for size in (-1, 1 << 40, 10**30, "12", 1.5, True, None, [1]):
        yield f"size {size!r}", edited(lambda index, size=size: index["files"][0].update(size_bytes=size))
    for sha256 in ("", "0" * 63, "G" * 64, 0, None, "0" * 64):
        yield f"sha256 {sha256!r}", edited(lambda index, sha256=sha256: index["files"][0].update(sha256=sha256))
    yield "no files", edited(lambda index: index.update(files=[]))
    yield "files that are one object", edited(lambda index: index.update(files={}))
    yield "half the files", edited(lambda index: index.update(files=index["files"][:2]))
    yield "sizes that are too much together", _many(good, [(f"f{i:03}", 1 << 29) for i in range(3)])
    yield "too many files", _many(good, [(f"f{i:03}", 0) for i in range(501)])
    yield "a document of a gigabyte", _many(good, [("parity.json", 1 << 30)])
    yield "a hole of four gigabytes", _many(good, [("model.fp32.onnx", 4 << 30)])
    paths = (
        *(
            "../escaped",
            "a/../../escaped",
            "/escaped",
            "a//b",
            "a/",
            ".hidden",
            "a/.hidden",
            "a\\b",
            "a\0b",
            "a\nb",
            "é",
        ),
        *(
            INDEX,
            "BUNDLE.JSON",
            "Manifest.json",
            "CHECKPOINT.json",
            "checkpoint.json/x",
            "x" * 101,
            "",
            "C:evil",
            "a b",
        ),
    )
    for path in paths:
        parts = Parts.of(good)
        parts.files[path] = b"gotcha"
        parts.names[path] = path.encode("ascii", "replace").decode()[:100] or "x"
        yield f"a file called {path[:30]!r}", parts.resealed().tar()
    yield "folders that differ by case", _with(good, {"engines/a": b"", "Engines/b": b""})


def _many(good: bytes, files: list[tuple[str, int]]) -> bytes:
    """An index that declares much, in an archive that holds little."""
    parts = Parts.of(good)
    rows = [{"path": path, "sha256": "0" * 64, "size_bytes": size} for path, size in files]
    kept = [row for row in parts.index["files"] if row["path"] not in {path for path, _ in files}]
    parts.index["files"] = sorted([*kept, *rows], key=lambda row: row["path"])
    return parts.tar()


def _with(good: bytes, files: dict[str, bytes]) -> bytes:
    parts = Parts.of(good)
    parts.files |= files
    return parts.resealed().tar()


# -- a release that lies, in a container without a fault -------------------------------------------------------------


def releases(good: bytes) -> Iterator[tuple[str, bytes]]:
    def document(path: str, change: Callable[[dict], object]) -> Parts:
        parts = Parts.of(good)
        found = json.loads(parts.files[path])
        change(found)
        parts.files[path] = json_bytes(found)
        return parts

    def manifest(change: Callable[[dict], object]) -> bytes:
        return document("manifest.json", change).resealed().tar()

    def replaced(path: str, data: bytes) -> bytes:
        parts = Parts.of(good)
        parts.files[path] = data
        return (parts.resealed() if path == "manifest.json" else parts.vouched()).tar()

    yield "a file that the manifest does not know", _with(good, {"extra": b"gotcha"})
    yield "a manifest of deep lists", replaced("manifest.json", b"[" * 500_000)
    yield "a manifest that is none", replaced("manifest.json", b"{}")
    yield "a manifest of noise", replaced("manifest.json", bytes(range(256)) * 100)
    yield "labels in another order", manifest(lambda m: m["model"].update(labels="1023456789"))
    yield "one label too few", manifest(lambda m: m["model"].update(labels="012345678"))
    yield "a label twice", manifest(lambda m: m["model"].update(labels="0012345678"))
    yield "another threshold", manifest(lambda m: m["model"].update(reject_below=0.0))
    yield "another temperature", manifest(lambda m: m["model"].update(temperature=9.0))
    yield "another mean", manifest(lambda m: m["model"]["preprocessing"].update(mean=0.5))
    yield "another name", manifest(lambda m: m.update(name="letters"))
    yield "no files in the manifest", manifest(lambda m: m.update(files=[]))
    yield "a path in the manifest", manifest(lambda m: m["files"][0].update(path="../escaped"))
    yield "a manifest with a file twice", manifest(lambda m: m["files"].append(m["files"][0]))
    yield "a role that is another's", manifest(lambda m: [f.update(role="card") for f in m["files"]])
    yield "a model of nobody's", manifest(lambda m: [f.update(made_from=[]) for f in m["files"]])
    yield "a source that is not there", manifest(lambda m: m["files"][0].update(made_from=["0" * 64]))
    yield "another model", replaced("model.fp32.onnx", b"ONNX")
    yield "other goldens without their verdict", document_stale(good)
    yield "parity of deep lists", replaced("parity.json", b"[" * 1_000_000)
    yield "parity that says nothing", replaced("parity.json", b'{"verdict": "PASS", "cells": []}')
    yield "parity that is a list", replaced("parity.json", b"[]")
    yield "parity without a verdict", document("parity.json", lambda p: p.pop("verdict")).vouched().tar()
    yield "verdict FAIL", document("parity.json", lambda p: p.update(verdict="FAIL")).vouched().tar()
    yield "one cell FAIL", document("parity.json", lambda p: p["cells"][0].update(verdict="FAIL")).vouched().tar()
    yield "cells of other files", document("parity.json", _other_cells).vouched().tar()
    yield "a checkpoint of other labels", document("checkpoint.json", _other_labels).vouched().tar()
    yield "a checkpoint without labels", document("checkpoint.json", lambda c: c.pop("labels")).vouched().tar()
    yield "a plan that nobody knows", _with(good, {"engines/model.fp32.sm86.engine": b"vtrt"})


def document_stale(good: bytes) -> bytes:
    """Goldens replaced and vouched for, while parity still tells of the others."""
    parts = Parts.of(good)
    manifest = json.loads(parts.files["manifest.json"])
    parts.files["goldens.npz"] = b"PK"
    for entry in manifest["files"]:
        if entry["path"] == "goldens.npz":
            entry["sha256"], entry["size_bytes"] = sha256_bytes(b"PK"), 2
    parts.files["manifest.json"] = json_bytes(manifest)
    return parts.resealed().tar()


def _other_cells(parity: dict) -> None:
    for cell in parity["cells"]:
        cell["file"]["sha256"] = "0" * 64


def _other_labels(checkpoint: dict) -> None:
    checkpoint["labels"] = "1023456789"


def hostile(good: bytes, seed: int = 0) -> list[tuple[str, bytes]]:
    """All of them."""
    rng = random.Random(seed)
    return [*containers(good, rng), *indexes(good), *releases(good)]


def slug(name: str) -> str:
    return re.sub(r"\W+", "-", name)[:60]
