"""What is missing is said to be, with the command that makes it; what is broken stops the report."""

import json
from pathlib import Path

import pytest

from hwr_export.errors import ReleaseError, UsageError
from hwr_export.parity import ParityConfig, parity
from hwr_export.release import BENCH, BENCH_SAMPLES, MANIFEST, PARITY, PROFILE, REPORT, Release
from hwr_export.report import write_report
from tests.conftest import one_json
from tests.report.conftest import Page
from tests.report.test_page import document, rewrite, text_of


def gaps(release: Release) -> set[str]:
    """Return the commands that the report of a release asks for."""
    return {m["command"].split()[1] for m in write_report(release)["missing"]}


def test_a_release_without_evidence_is_not_judged_and_says_what_to_run(release: Release) -> None:
    assert gaps(release) == {"parity", "bench", "profile", "quantize"}
    words = Page((release.path / REPORT).read_text()).words
    assert "NOT JUDGED Nothing was compared with the eager model yet." in " ".join(words.split())
    for command, sections in (("parity", 5), ("bench", 6), ("profile", 2), ("quantize", 1)):
        assert words.count(f"hwr-export {command} {release.path}") == sections


def test_a_release_with_all_evidence_lacks_nothing(shown: Path, tmp_path: Path) -> None:
    result = write_report(Release.open(shown), tmp_path / "out.html")
    assert result["missing"] == []
    assert result["size_bytes"] == (tmp_path / "out.html").stat().st_size
    assert 'class="missing"' not in (tmp_path / "out.html").read_text()


def test_evidence_of_other_files_counts_as_none(evidence: Release) -> None:
    with evidence.change() as change:
        change.write("model.fp16.onnx", b"newer", "onnx", [evidence.onnx("fp32").sha256], "fp16")
    release = Release.open(evidence.path)
    assert gaps(release) == {"parity", "bench", "profile"}
    assert "is about other ONNX files than this release holds now" in (release.path / REPORT).read_text()


def test_evidence_of_an_earlier_version(evidence: Release) -> None:
    found = document(evidence.path, PARITY)
    del found["eager"]
    for cell in found["cells"]:
        del cell["answers"], cell["flipped"]
    bench = document(evidence.path, BENCH) | {"schema": 1}
    release = rewrite(rewrite(evidence, PARITY, "parity", found), BENCH, "bench", bench)
    result = write_report(release)
    assert [m["why"] for m in result["missing"]] == [
        "The parity report of this release does not keep what the models answered.",
        "The latency was measured by an earlier version.",
    ]
    assert len(Page((release.path / REPORT).read_text()).table("Verdicts")) == 3


def test_a_profile_without_an_arithmetic_or_times_of_layers(evidence: Release) -> None:
    found = document(evidence.path, PROFILE)
    found["peaks"][0]["int8"] = None
    for scaled in found["scaling"]:
        scaled["points"] = [] if scaled["arithmetic"] == "int8" else scaled["points"][:1]
    for layer in (layer for model in found["models"] for layer in model["layers"]):
        layer["share"] = None
    text = text_of(rewrite(evidence, PROFILE, "profile", found))
    rows = Page(text).table("Cost of a call")
    assert {r["Largest batch"][0] for r in rows if r["Arithmetic"][0] == "int8"} == {"no peak"}
    assert Page(text).table("Roofs")[0]["int8,GOP/s"] == ("–", "")
    assert text.count("The time of this file was not told apart by layer.") == len(found["models"])


def test_a_bench_without_starts_says_how_to_measure_them(evidence: Release) -> None:
    found = document(evidence.path, BENCH) | {"starts": []}
    text = text_of(rewrite(evidence, BENCH, "bench", found))
    assert "No start was measured." in text
    assert "<caption>Starting" not in text


def test_a_profile_that_is_none_stops_the_report(evidence: Release) -> None:
    found = document(evidence.path, PROFILE)
    del found["scaling"][0]["points"][0]["bound"]
    release = rewrite(evidence, PROFILE, "profile", found)
    with pytest.raises(ReleaseError, match=r"profile.json is not the evidence .*'bound'\); run `hwr-export profile"):
        write_report(release)


def test_without_verdicts_latencies_are_shown_and_nothing_is_recommended(release: Release, shown: Path) -> None:
    bench = document(shown, BENCH)
    bench["cells"] = [c | {"verdict": None} for c in bench["cells"] if c["precision"] == "fp32"]
    with release.change() as change:
        change.write(BENCH, json.dumps(bench).encode(), "bench", [release.onnx("fp32").sha256])
    text = text_of(Release.open(release.path))
    rows = Page(text).table("Batch 1, 1 thread")
    assert {r["Parity"][0] for r in rows} == {"baseline", "not judged"}
    assert {r["Distribution"][0] for r in rows} == {"not kept"}  # the samples are not in this release
    assert "ship <strong>" not in text


def test_verdicts_from_goldens_alone_have_no_scanner_conditions(release: Release) -> None:
    parity(release, ParityConfig(baseline="goldens", backends=("onnxruntime",)))
    words = " ".join(Page(text_of(release)).words.split())
    assert "so nothing was looked at under scanner conditions. This section is made by hwr-export parity" in words
    assert "No file reads any of the 256 images otherwise than the eager model." in words


def test_where_nothing_could_run_there_is_no_chart(evidence: Release) -> None:
    found = document(evidence.path, PARITY)
    for cell in found["cells"]:
        cell |= {"delta_ci_pt": None, "accuracy_delta_pt": None, "n": 0, "agreement": 0}
    text = text_of(rewrite(evidence, PARITY, "parity", found))
    assert "Change of accuracy with its" not in text
    assert "Answers kept, at least" not in text


def test_a_file_that_could_not_run_is_shown_with_its_reason(evidence: Release) -> None:
    found = document(evidence.path, PARITY)
    unknown = ("accuracy", "accuracy_delta_pt", "delta_ci_pt", "flips", "max_abs_logit_diff", "task", "corruptions")
    found["cells"][0] |= dict.fromkeys((*unknown, "answers", "flipped")) | {
        "verdict": "FAIL", "n": 0, "agreement": 0, "reasons": ["it does not load"]
    }  # fmt: skip
    found["verdict"] = "FAIL"
    text = text_of(rewrite(evidence, PARITY, "parity", found))
    row = Page(text).table("Verdicts")[0]
    assert row["Answerskept"][0] == "not run"
    assert (row["Accuracy"], row["Change,points"]) == (("–", ""), ("–", ""))
    assert "it does not load" in text


def test_a_changed_model_is_a_fail_whatever_was_proven(evidence: Release) -> None:
    (evidence.path / "model.fp32.onnx").write_bytes(b"another")
    result = write_report(evidence)
    assert result["verdict"] == "FAIL"
    words = Page((evidence.path / REPORT).read_text()).words
    assert "The release is not what its manifest vouches for: model.fp32.onnx (changed" in words


def test_changed_evidence_stops_the_report(evidence: Release) -> None:
    (evidence.path / PARITY).write_text("{}")
    with pytest.raises(ReleaseError, match=r"parity.json is not the file the manifest vouches for"):
        write_report(evidence)


def test_evidence_that_is_none_stops_the_report(evidence: Release) -> None:
    found = document(evidence.path, PARITY)
    del found["cells"][0]["agreement"]
    release = rewrite(evidence, PARITY, "parity", found)
    with pytest.raises(
        ReleaseError, match=r"not the evidence that this version writes \(KeyError: 'agreement'\); run `hwr"
    ):
        write_report(release)
    assert release.entry(REPORT) is None


def test_samples_that_are_none_stop_the_report(evidence: Release) -> None:
    entry = evidence.entry(BENCH_SAMPLES)
    assert entry is not None
    with evidence.change() as change:
        change.write(BENCH_SAMPLES, b"no npz", "samples", entry.made_from)
    with pytest.raises(ReleaseError, match="cannot be read as samples"):
        write_report(Release.open(evidence.path))


def test_the_report_is_in_the_manifest_until_the_release_changes(shown: Path, evidence: Release) -> None:
    entry = Release.open(shown).entry(REPORT)
    assert entry is not None
    assert entry.role == "report"
    assert all(s.ok for s in Release.open(shown).verify())
    release = rewrite(evidence, PARITY, "parity", document(evidence.path, PARITY) | {"verdict": "UNDECIDED"})
    assert release.entry(REPORT) is None
    assert not (release.path / REPORT).exists()


def test_the_command(evidence: Release, hwr, tmp_path: Path) -> None:
    before = (evidence.path / MANIFEST).read_bytes()
    out = tmp_path / "page.html"
    result = hwr("report", evidence.path, "-o", out)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith(f"{out}: ")
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert (evidence.path / MANIFEST).read_bytes() == before
    found = one_json(hwr("report", evidence.path, "--json").stdout)
    assert found["path"] == str(evidence.path / REPORT)
    assert "report.html" in (evidence.path / "MODEL_CARD.md").read_text()


def test_a_place_that_the_manifest_would_not_know_is_refused(evidence: Release, hwr) -> None:
    with pytest.raises(UsageError, match="is inside the release"):
        write_report(evidence, evidence.path / "other.html")
    result = hwr("report", evidence.path, "-o", evidence.path / "deeper" / "page.html")
    assert result.exit_code == 2
    result = hwr("report", evidence.path, "-o", evidence.path.parent / "absent" / "page.html")
    assert result.exit_code == 1
    assert "No such file or directory" in result.stderr


@pytest.mark.parametrize("package", ["jinja2", "vl_convert"])
def test_what_is_not_installed_is_named(evidence: Release, hwr_process, package: str) -> None:
    done = hwr_process("report", evidence.path, without=(package, "torch"))
    assert done.returncode == 2
    assert done.stderr.strip() == f"Error: this needs {package}: pip install 'hwr-export[report]'"
