"""The page says what the evidence says, escapes what comes from files, and is built so that anybody can read it."""

import itertools
import json
import re
from pathlib import Path

import pytest

from hwr_export.files import json_bytes
from hwr_export.release import BENCH, MANIFEST, PARITY, PROFILE, QUANTIZATION, REPORT, Release
from hwr_export.report import write_report
from hwr_export.report.page import interval, percent, signed
from tests.conftest import ROOT
from tests.report.conftest import Page

HOSTILE = "</script><img src=x onerror=alert(1)>\"'&<b>"


def document(release: Path, name: str) -> dict:
    return json.loads((release / name).read_text())


def rewrite(release: Release, name: str, role: str, found: dict) -> Release:
    """Replace a document as if its command had written it."""
    entry = release.entry(name)
    assert entry is not None
    with release.change() as change:
        change.write(name, json_bytes(found), role, entry.made_from)
    return Release.open(release.path)


def text_of(release: Release) -> str:
    write_report(release)
    return (release.path / REPORT).read_text()


def test_the_verdict_comes_first(shown: Path, page: str) -> None:
    verdict = document(shown, PARITY)["verdict"]
    assert f"<title>tiny: {verdict}</title>" in page
    words = Page(page).words
    assert words.index(verdict) < words.index("Accuracy before export") < words.index("Verdicts")


def test_verdicts_are_those_of_parity(shown: Path, page: str) -> None:
    cells = document(shown, PARITY)["cells"]
    rows = Page(page).table("Verdicts")
    assert len(rows) == len(cells) == 3
    for row, cell in zip(rows, cells, strict=True):
        assert (row["File"][0], row["Backend"][0]) == (cell["precision"], cell["backend"])
        assert row["Verdict"][0] == cell["verdict"]
        assert float(row["Answerskept"][1]) == cell["agreement"]
        assert float(row["Accuracy"][1]) == cell["accuracy"]
        assert row["Accuracy"][0] == percent(cell["accuracy"])
        assert row["95 %"][0] == interval(tuple(cell["answers"]["accuracy_ci95"]), percent)
        assert float(row["Change,points"][1]) == cell["accuracy_delta_pt"]
        assert row["Bounds"][0] == interval(tuple(cell["delta_ci_pt"]), signed)
        for reason in cell["reasons"]:
            assert reason in Page(page).words


def test_flips_are_shown_as_images_with_both_answers(shown: Path, page: str) -> None:
    found = Page(page)
    flips = {f["index"]: f for c in document(shown, PARITY)["cells"] for f in c["flipped"]}
    assert flips, "the int8 files of the tiny model are expected to flip something"
    images = [a["src"] for tag, a in found.tags if tag == "img"]
    assert sorted(images) == sorted(f"data:image/png;base64,{f['png']}" for f in flips.values())
    for index, flip in flips.items():
        rows = found.table(f"Answers to image {index}")
        assert rows[0]["Side"][0] == "eager"
        assert float(rows[0]["Margin"][1]) == flip["eager"]["margin"]
        assert rows[0]["Reads"][0].startswith(str(flip["eager"]["answer"]))
        assert all(row["Reads"][0][0] != rows[0]["Reads"][0][0] for row in rows[1:])


def test_latencies_are_those_of_bench(shown: Path, page: str) -> None:
    cells = document(shown, BENCH)["cells"]
    for batch in (1, 4):
        rows = Page(page).table(f"Batch {batch}, 1 thread")
        here = sorted((c for c in cells if c["batch"] == batch), key=lambda c: c["p50_us"])
        assert [(r["File"][0], r["Backend"][0]) for r in rows] == [(c["precision"], c["backend"]) for c in here]
        for row, cell in zip(rows, here, strict=True):
            assert float(row["Median,µs"][1]) == cell["p50_us"]
            assert float(row["p90"][1]) == cell["p90_us"]
            assert row["p99"][1] == ("" if cell["p99_us"] is None else str(cell["p99_us"]))
            assert float(row["Againsteager"][1]) == cell["speedup_vs_eager"]
            assert float(row["Images/s"][1]) == cell["offline_images_per_s"]


def test_tails_are_those_of_bench(shown: Path, page: str) -> None:
    cells = {(c["precision"], c["backend"], c["batch"]): c for c in document(shown, BENCH)["cells"]}
    rows = Page(page).table("Tails of a single stream")
    assert len(rows) == len(cells)
    for row in rows:
        cell = cells[row["File"][0], row["Backend"][0], int(row["Batch"][0])]
        for name, key in (("p90", "p90_us"), ("p90bound", "p90_mlperf_bound_us"), ("p99bound", "p99_mlperf_bound_us")):
            assert row[name][1] == ("" if cell[key] is None else str(cell[key]))
        assert row["Warm-up"][0] == ("steady" if cell["steady"] else "never steady")


def test_parts_of_a_call_are_those_of_bench(shown: Path, page: str) -> None:
    cells = {(c["precision"], c["backend"]): c for c in document(shown, BENCH)["cells"] if c["batch"] == 4}
    rows = Page(page).table("Parts of a call at batch 4, 1 thread")
    assert len(rows) == len(cells)
    for row in rows:
        parts = cells[row["File"][0], row["Backend"][0]]["phases_us"]
        for name, key in (("Copy in", "copy_in"), ("Compute", "compute"), ("Copy out", "copy_out")):
            assert row[name][1] == str(parts.get(key, ""))
        assert float(row["Together"][1]) == pytest.approx(sum(parts.values()))


def test_starts_and_watches_are_those_of_bench_and_profile(shown: Path, page: str) -> None:
    starts = document(shown, BENCH)["starts"]
    rows = Page(page).table("Starting, in a process of its own")
    assert [(float(r["CPU, s"][1]), float(r["Peak memory, MiB"][1])) for r in rows] == [
        (s["cpu_s"], s["peak_rss_mib"]) for s in starts
    ]
    watches = [
        (run, w) for run, name in (("bench", BENCH), ("profile", PROFILE)) for w in document(shown, name)["watches"]
    ]
    rows = Page(page).table("Watches")
    for row, (run, watch) in zip(rows, watches, strict=True):
        assert (row["Run"][0], row["Batch"][0]) == (run, str(watch["batch"]))
        assert float(row["Yardstickdiffers by"][1]) == watch["yardstick_spread"]
        assert row["Noise"][0] == ("; ".join(watch["noisy"]) or "quiet")


def test_what_binds_is_what_profile_found(shown: Path, page: str) -> None:
    found = document(shown, PROFILE)
    for row, scaled in zip(Page(page).table("Cost of a call"), found["scaling"], strict=True):
        first, last = scaled["points"][0], scaled["points"][-1]
        assert (row["File"][0], row["Backend"][0]) == (scaled["precision"], scaled["backend"])
        assert float(row["Fixed,µs"][1]) == scaled["overhead_us"]
        assert row["Smallest batch"][0] == f"1: {first['bound']}"
        assert row["Largest batch"][0] == f"4: {last['bound']}"
        assert float(row["Of the peak"][1]) == last["fraction_of_peak"]
    rows = Page(page).table("Every batch under the roofs")
    points = [p for s in found["scaling"] for p in s["points"]]
    assert [float(r["Of the bandwidth"][1]) for r in rows] == [p["fraction_of_bandwidth"] for p in points]
    assert float(Page(page).table("Roofs")[0]["Memory,GB/s"][1]) == found["peaks"][0]["memory_gb_s"]


def test_layers_are_those_of_profile(shown: Path, page: str) -> None:
    for model in document(shown, PROFILE)["models"]:
        rows = Page(page).table(f"Layers of the {model['precision']} file")
        for row, layer in zip(rows, model["layers"], strict=True):
            assert row["Layer"][0] == layer["name"]
            assert (float(row["FLOP"][1]), float(row["Bytes"][1])) == (layer["flop"], layer["bytes"])
            assert row["Time"][1] == ("" if layer["share"] is None else str(layer["share"]))
            assert row["Waste"][0] == layer["waste"]


def test_hashes_are_those_of_the_manifest(shown: Path, page: str) -> None:
    rows = {r["File"][0]: r for r in Page(page).table("Files")}
    files = {f["path"]: f for f in document(shown, MANIFEST)["files"]}
    assert set(rows) == set(files) - {REPORT, "MODEL_CARD.md"}
    for name, row in rows.items():
        assert row["sha256"][0] == files[name]["sha256"]
        assert row["State"][0] == "holds"


def test_what_did_not_pass_is_struck_through_and_not_recommended(evidence: Release) -> None:
    parity, bench = document(evidence.path, PARITY), document(evidence.path, BENCH)
    for cell in (*parity["cells"], *bench["cells"]):
        if cell["backend"] != "eager":
            cell["verdict"] = "FAIL" if cell["precision"] == "int8-cpu" else "PASS"
    parity["verdict"] = "FAIL"
    text = text_of(rewrite(rewrite(evidence, PARITY, "parity", parity), BENCH, "bench", bench))
    struck = re.findall(r'<tr class="struck[^"]*">.*?</tr>', text, re.DOTALL)
    assert len(struck) == 8  # two batches: latency, tails, parts of a call, choices
    assert all("<s>int8-cpu</s>" in row for row in struck)
    assert "Not every file may replace the eager model. FAIL: int8-cpu on onnxruntime. 2 of 3 pass." in text
    assert "ship <strong>model.int8-cpu.onnx" not in text


def test_names_and_values_from_files_are_escaped(evidence: Release) -> None:
    manifest = json.loads((evidence.path / MANIFEST).read_text())
    manifest["name"] = HOSTILE
    (evidence.path / MANIFEST).write_text(json.dumps(manifest))
    release = Release.open(evidence.path)
    parity, quantised = document(release.path, PARITY), document(release.path, QUANTIZATION)
    parity["data"]["name"] = HOSTILE
    parity["cells"][0] |= {"reasons": [HOSTILE], "precision": HOSTILE, "backend": HOSTILE}
    for cell in parity["cells"]:
        for flip in cell["flipped"]:
            flip["png"] = HOSTILE
    quantised["files"][0]["layers"][0]["layer"] = HOSTILE
    quantised["files"][0]["scheme"] = HOSTILE
    profile = document(release.path, PROFILE)
    profile["models"][0]["layers"][0] |= {"name": HOSTILE, "waste": HOSTILE, "share": 0.1}
    profile["watches"][0]["noisy"] = [HOSTILE]
    profile["scaling"][0]["backend"] = HOSTILE
    release = rewrite(rewrite(release, PARITY, "parity", parity), QUANTIZATION, "quantization", quantised)
    text = text_of(rewrite(release, PROFILE, "profile", profile))
    found = Page(text)
    assert found.words.count(HOSTILE) >= 11
    assert [a for tag, a in found.tags if tag == "script"] == [{}]
    assert not [a for _, a in found.tags if any(name.startswith("on") for name in a)]
    assert not [tag for tag, _ in found.tags if tag == "b"]
    assert all(a["src"].startswith("data:image/png;base64,") for tag, a in found.tags if tag == "img")


def test_the_page_is_one_file_that_asks_for_nothing(page: str) -> None:
    found = Page(page)
    policy = next(a["content"] for tag, a in found.tags if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")
    assert not [tag for tag, _ in found.tags if tag in ("link", "iframe", "object", "base")]
    assert not [a for _, a in found.tags if "style" in a]  # the policy refuses them
    links = [a[name] for _, a in found.tags for name in ("src", "href") if name in a]
    assert all(link.startswith(("#", "data:image/png;base64,")) for link in links)
    assert len(page) < 2_000_000


def test_the_page_can_be_read_without_eyes(page: str) -> None:
    tags = Page(page).tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert {"header", "nav", "main"} <= {tag for tag, _ in tags}
    assert all(a.get("scope") in ("col", "row") for tag, a in tags if tag == "th")
    assert [t for t, _ in tags].count("table") == [t for t, _ in tags].count("caption")
    assert all(a["alt"] for tag, a in tags if tag == "img")
    charts = [a for tag, a in tags if tag == "svg"]
    assert len(charts) > 10
    assert all(a["role"] == "img" and a["aria-label"] for a in charts)
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {a["href"].removeprefix("#") for tag, a in tags if tag == "a"} <= set(ids)


def test_the_same_evidence_gives_the_same_page(shown: Path, tmp_path: Path) -> None:
    pages = [tmp_path / "a.html", tmp_path / "b.html"]
    for out in pages:
        write_report(Release.open(shown), out)
    assert pages[0].read_bytes() == pages[1].read_bytes()


def luminance(colour: str) -> float:
    digits = colour if len(colour) == 6 else "".join(2 * c for c in colour)
    parts = (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("scheme", [0, 1, 2], ids=["light", "dark", "print"])
@pytest.mark.parametrize("name", ["ink", "muted", "accent", "pass", "fail", "undecided"])
def test_text_contrasts_enough(scheme: int, name: str) -> None:
    style = (ROOT / "hwr_export/report/templates/style.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[scheme]
    colours = dict(re.findall(r"--(\w+): #([0-9a-f]+)", block))
    for ground in ("paper", "panel"):
        light, dark = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG 2.2, AA
