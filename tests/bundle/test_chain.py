"""What may be packed: the reference release may, and one broken link at a time may not, by name."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from hwr_export.bundle.chain import DEVICE_ROLES, device_manifest, require_chain
from hwr_export.errors import BundleError
from hwr_export.files import json_bytes, sha256_bytes
from hwr_export.release import Manifest, Release

ENGINE = "engines/model.fp32.sm86.engine"


def with_engine(release: Release, source: str | None = None, told: str = ENGINE) -> Release:
    """Add a plan and its sidecar, which says that it was built from `source`."""
    model = release.onnx("fp32")
    with release.change() as change:
        engine = change.write(ENGINE, b"vtrt a plan", "engine", [model.sha256], precision="fp32")
        sidecar = {"path": told, "sha256": engine.sha256, "source_onnx_sha256": source or model.sha256}
        change.write(f"{ENGINE}.json", json_bytes(sidecar), "sidecar", [engine.sha256], precision="fp32")
    return Release.open(release.path)


def rewritten(release: Release, path: str, change: Callable[[dict], object]) -> Release:
    """Change a document and vouch for it, in the manifest and in what was made from it."""
    entry = release.entry(path)
    document = json.loads((release.path / path).read_bytes())
    change(document)
    data = json_bytes(document)
    (release.path / path).write_bytes(data)
    text = (release.path / "manifest.json").read_text().replace(entry.sha256, sha256_bytes(data))
    (release.path / "manifest.json").write_text(text)
    return Release.open(release.path)


def edited(release: Release, change: Callable[[dict], object]) -> Release:
    manifest = json.loads((release.path / "manifest.json").read_bytes())
    change(manifest)
    (release.path / "manifest.json").write_bytes(json_bytes(manifest))
    return Release.open(release.path)


def without(*paths: str) -> Callable[[dict], object]:
    return lambda m: m.update(files=[f for f in m["files"] if f["path"] not in paths])


def unlinked(path: str, source: str) -> Callable[[dict], object]:
    def change(manifest: dict) -> None:
        gone = next(f["sha256"] for f in manifest["files"] if f["path"] == source)
        for file in manifest["files"]:
            if file["path"] == path:
                file["made_from"] = [sha256 for sha256 in file["made_from"] if sha256 != gone]

    return change


def test_the_reference_release_is_one_chain(digits: Release) -> None:
    require_chain(digits, whole=True)
    require_chain(with_engine(digits), whole=True)


@pytest.mark.parametrize(
    ("path", "source", "again"),
    [
        ("checkpoint.json", "weights-51c167fcdbf1.safetensors", "onnx"),
        ("model.fp32.onnx", "checkpoint.json", "onnx"),
        ("model.fp16.onnx", "checkpoint.json", "onnx"),
        ("model.int8.onnx", "model.fp32.onnx", "quantize"),
        ("model.int8-cpu.onnx", "checkpoint.json", "quantize"),
        ("quantization.json", "model.int8.onnx", "quantize"),
        ("goldens.npz", "checkpoint.json", "onnx"),
        ("parity.json", "goldens.npz", "parity"),
        ("parity.json", "model.int8-cpu.onnx", "parity"),
        ("bench.json", "model.fp16.onnx", "bench"),
        ("profile.json", "model.fp32.onnx", "profile"),
    ],
)
def test_a_missing_link_is_named_with_what_mends_it(digits: Release, path: str, source: str, again: str) -> None:
    weights = digits.by_role("weights")[0].path
    source = weights if source.startswith("weights") else source
    with pytest.raises(BundleError, match=f"broken between {source} and {path}, .* run `hwr-export {again}` again"):
        require_chain(edited(digits, unlinked(path, source)), whole=True)


def test_a_changed_a_missing_and_a_stale_file_are_named(digits: Release) -> None:
    (digits.path / "goldens.npz").write_bytes(b"PK")
    with pytest.raises(BundleError, match=r"broken at goldens\.npz: changed"):
        require_chain(digits, whole=True)
    (digits.path / "goldens.npz").unlink()
    with pytest.raises(BundleError, match=r"broken at goldens\.npz: missing"):
        require_chain(digits, whole=True)


def test_a_report_of_a_file_that_is_gone_is_stale(digits: Release) -> None:
    with pytest.raises(BundleError, match=r"broken at .*: stale"):
        require_chain(edited(digits, without("model.fp16.onnx")), whole=True)


@pytest.mark.parametrize(
    ("path", "again"),
    [("checkpoint.json", "onnx"), ("model.fp32.onnx", "onnx"), ("goldens.npz", "onnx"), ("parity.json", "parity")],
)
def test_what_every_chain_has_must_be_there(digits: Release, path: str, again: str) -> None:
    with pytest.raises(BundleError, match=f"has no {path} of its own.*run `hwr-export {again}`"):
        require_chain(edited(digits, without(path)), whole=True)


def test_weights_are_needed_until_a_release_is_packed(digits: Release) -> None:
    release = edited(digits, without(digits.by_role("weights")[0].path))
    with pytest.raises(BundleError, match="has no weights"):
        require_chain(release, whole=True)


@pytest.mark.parametrize(
    ("key", "value", "what"),
    [
        ("labels", "1023456789", "label set is '0123456789' in one and '1023456789' in the other"),
        ("temperature", 9.0, "temperature"),
        ("reject_below", 0.25, "rejection threshold"),
    ],
)
def test_the_manifest_must_say_what_the_checkpoint_says(digits: Release, key: str, value: object, what: str) -> None:
    with pytest.raises(BundleError, match=f"between checkpoint.json and the manifest: the {what}"):
        require_chain(edited(digits, lambda m: m["model"].update({key: value})), whole=True)


def test_a_checkpoint_of_other_weights_is_named(digits: Release) -> None:
    release = rewritten(digits, "checkpoint.json", lambda c: c["weights"].update(file="weights-of-another.safetensors"))
    with pytest.raises(BundleError, match=r"and checkpoint\.json, which tells of weights-of-another"):
        require_chain(release, whole=True)


def test_only_what_passed_is_shipped(digits: Release) -> None:
    def fail(parity: dict) -> None:
        parity["cells"][0]["verdict"] = "UNDECIDED"

    cell = r"model\.fp16\.onnx on onnxruntime: UNDECIDED"
    with pytest.raises(BundleError, match=rf"not everything did: {cell}"):
        require_chain(rewritten(digits, "parity.json", fail), whole=True)


def test_a_verdict_over_all_that_is_not_pass_is_enough(digits: Release) -> None:
    with pytest.raises(BundleError, match="over all FAIL"):
        require_chain(rewritten(digits, "parity.json", lambda p: p.update(verdict="FAIL")), whole=True)


def test_a_model_without_a_verdict_is_named(digits: Release) -> None:
    def forget(parity: dict) -> None:
        parity["cells"] = [c for c in parity["cells"] if c["precision"] != "int8"]

    with pytest.raises(BundleError, match=r"between model\.int8\.onnx and parity\.json, which has no verdict on it"):
        require_chain(rewritten(digits, "parity.json", forget), whole=True)


def test_a_plan_of_another_model_is_named(digits: Release) -> None:
    with pytest.raises(BundleError, match=r"between model\.fp32\.onnx and engines/.*built from another file \(0000"):
        require_chain(with_engine(digits, source="0" * 64))


def test_a_sidecar_of_another_plan_is_named(digits: Release) -> None:
    with pytest.raises(BundleError, match=r"which tells of another plan"):
        require_chain(with_engine(digits, told="engines/another.engine"))


def test_a_sidecar_without_its_plan_is_named(digits: Release) -> None:
    with pytest.raises(BundleError, match=r"is of no plan of the release|stale"):
        require_chain(edited(with_engine(digits), without(ENGINE)))


def test_a_document_that_is_none_is_named(digits: Release) -> None:
    entry = digits.entry("parity.json")
    (digits.path / "parity.json").write_bytes(b"[" * 100_000)
    text = (digits.path / "manifest.json").read_text().replace(entry.sha256, sha256_bytes(b"[" * 100_000))
    (digits.path / "manifest.json").write_text(text)
    with pytest.raises(BundleError, match=r"parity\.json is no document this version can read: .*recursion"):
        require_chain(Release.open(digits.path))


def test_a_device_gets_a_part_that_is_a_release_of_its_own(digits: Release, tmp_path: Path) -> None:
    part = device_manifest(with_engine(digits))
    assert {f.role for f in part.files} == DEVICE_ROLES - {"build"}
    present = {f.sha256 for f in part.files}
    assert all(set(f.made_from) <= present for f in part.files)
    assert part.model == digits.spec
    assert Manifest.model_validate_json(part.to_json()) == part
    for file in part.files:
        (tmp_path / "part" / file.path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "part" / file.path).write_bytes((digits.path / file.path).read_bytes())
    (tmp_path / "part" / "manifest.json").write_bytes(part.to_json())
    require_chain(Release.open(tmp_path / "part"))
