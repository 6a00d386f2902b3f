"""Documentation cannot drift: generated pages are current, commands exist, figures are the committed ones."""

import importlib.util
import json
import re
import shlex
import shutil
from pathlib import Path

import click
import pytest

from hwr_export.cli import main as hwr_export
from hwr_export.release import Release
from hwr_export.scan_cli import main as hwr_scan
from tests.conftest import ROOT
from train.__main__ import main as train

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "ARCHITECTURE.md", *sorted((ROOT / "docs").rglob("*.md"))]


def commands() -> list[tuple[str, str]]:
    """Every command line of a code block that is ours."""
    found = []
    for page in PAGES:
        for block in re.findall(r"```\w*\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.replace("\\\n", " ").splitlines():
                text = line.strip().removeprefix("$ ")
                if text.startswith(("hwr-export ", "hwr-scan ", "python -m train ")):
                    found.append((page.name, text.split("  #")[0].strip()))
    return found


def load_script(name: str):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(("page", "line"), commands())
def test_commands_in_the_docs_parse(page: str, line: str) -> None:
    words = shlex.split(line)
    group = {"python": train, "hwr-scan": hwr_scan}.get(words[0], hwr_export)
    name, *arguments = words[3:] if words[0] == "python" else words[1:]
    assert name in group.commands, f"{page}: {line}"
    command = group.commands[name]
    parent = click.Context(group, info_name=words[0], **group.context_settings)
    if isinstance(command, click.Group):
        parent = click.Context(command, parent=parent, info_name=name)
        name, *arguments = arguments
        assert name in command.commands, f"{page}: {line}"
        command = command.commands[name]
    with click.Context(command, parent=parent, info_name=name) as context:
        command.parse_args(context, arguments)


def test_the_docs_do_contain_commands() -> None:
    assert {line.split()[1] for _, line in commands() if line.startswith("hwr-export")} >= set(hwr_export.commands) - {
        "doctor"
    }


def test_every_command_is_in_the_reference_and_it_is_current() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == load_script("make_docs").document()


def test_every_key_of_the_scanner_is_described_and_the_page_is_current() -> None:
    make_docs = load_script("make_docs")
    assert (ROOT / "docs" / "scan-config.md").read_text() == make_docs.scan_config()
    for heading, model in make_docs.SCAN_TABLES:
        for name, field in model.model_fields.items():
            assert name == "kind" or field.description, f"{heading}: {name}"


def test_every_key_of_a_form_is_described_and_the_pages_are_current() -> None:
    make_docs = load_script("make_docs")
    assert (ROOT / "docs" / "form-keys.md").read_text() == make_docs.form_keys()
    assert (ROOT / "docs" / "form-schema.json").read_text() == make_docs.form_schema()
    for heading, model in make_docs.FORM_TABLES:
        for name, field in model.model_fields.items():
            assert name == "kind" or field.description, f"{heading}: {name}"


def test_the_page_of_figures_is_current() -> None:
    assert (ROOT / "docs" / "figures.md").read_text() == load_script("make_docs").figures()


def test_the_tables_of_peers_are_current() -> None:
    page = (ROOT / "docs" / "latency.md").read_text()
    make_docs = load_script("make_docs")
    assert make_docs.PEERS_BEGIN in page
    assert make_docs.with_peers(page) == page


def test_the_tables_of_forms_are_current() -> None:
    make_docs = load_script("make_docs")
    page = (ROOT / "docs" / "forms-reading.md").read_text()
    assert make_docs.FORMS_BEGIN in page
    assert make_docs.with_forms(page) == page
    digits = json.loads((ROOT / "docs" / "figures" / "forms.json").read_bytes())["families"]["digits"]
    accepted, wrong, bound = (100 * digits[name] for name in ("accepted_share", "wrong_share", "wrong_upper95"))
    told = f"{accepted:.1f} % of the digit fields are accepted and {wrong:.3f} % of those wrong (at most {bound:.3f} %"
    assert told in " ".join((ROOT / "README.md").read_text().split())


def test_the_table_of_roundings_is_current() -> None:
    make_docs = load_script("make_docs")
    page = (ROOT / "docs" / "quantisation.md").read_text()
    assert make_docs.ROUNDING_BEGIN in page
    assert make_docs.with_rounding(page) == page


def test_the_table_of_install_sizes_is_current() -> None:
    page = (ROOT / "docs" / "device.md").read_text()
    make_docs = load_script("make_docs")
    assert make_docs.SIZES_BEGIN in page
    assert make_docs.with_install_sizes(page) == page


def test_the_transcript_is_of_the_demo() -> None:
    run = re.findall(r"^run (.*)$", (ROOT / "scripts" / "demo.sh").read_text(), re.MULTILINE)
    shown = re.findall(r"^\$ (.*)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(shown) == len(run)
    for script, transcript in zip(run, shown, strict=True):
        assert transcript.split(".png")[0].split("*")[0].startswith(script.split("*")[0][:40])


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
            if not target.startswith("http"):
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_the_file_tree_is_complete() -> None:
    readme = (ROOT / "README.md").read_text()
    for folder in ("hwr_export", "train"):
        for path in (ROOT / folder).glob("*.py"):
            if not path.name.startswith("__"):
                assert path.name in readme, path


@pytest.mark.parametrize("name", ["digits-edge", "digits-article", "chars62-edge"])
def test_the_table_of_models_shows_the_committed_figures(name: str) -> None:
    figures = json.loads((ROOT / "docs" / "figures" / f"evaluate-{name}.json").read_text())
    low, high = (100 * (1 - bound) for bound in reversed(figures["ci95"]))
    cells = [f"{figures['parameters']:,}", f"{figures['error_percent']:.2f} %", f"{low:.2f} to {high:.2f} %"]
    assert f"| {' | '.join(cells)} | {100 * figures['ece']:.2f} % |" in (ROOT / "README.md").read_text()


def test_the_page_about_parity_shows_the_committed_run() -> None:
    run = json.loads((ROOT / "exported" / "digits" / "parity.json").read_text())
    page = (ROOT / "docs" / "parity.md").read_text()
    for cell in run["cells"]:
        low, high = cell["delta_ci_pt"]
        conditions = cell["corruptions"]
        tolerance = "-" if cell["tolerance"] is None else f"{cell['tolerance']:.1e}"
        assert (
            f"| {cell['backend']} | {cell['precision']} | {cell['verdict']} | {cell['agreement']}/{cell['n']} | "
            f"{cell['accuracy_delta_pt']:+.3f} ({low:+.3f} to {high:+.3f}) | "
            f"{conditions['delta_pt']:+.3f} {conditions['verdict']} | "
            f"{cell['max_abs_logit_diff']:.1e} | {tolerance} |"
        ) in page
        assert f"by {cell['task']['writers']}\nwriters" in page
    assert ", ".join(f"{v:.1e} ({k})" for k, v in run["noise"].items()) in page


def test_nothing_speaks_of_this_machine() -> None:
    import subprocess

    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    home = str(Path.home()).encode()
    for name in tracked:
        content = (ROOT / name).read_bytes()
        assert str(ROOT).encode() not in content, name
        assert len(home) < 6 or home not in content, name


# -- the committed reference release ---------------------------------------------------------------------------------


def test_the_reference_release_holds() -> None:
    release = Release.open(ROOT / "exported" / "digits")
    assert [s for s in release.verify() if not s.ok and not s.path.startswith("engines/")] == []


def test_the_reference_release_passed_on_all_of_mnist() -> None:
    parity = json.loads((ROOT / "exported" / "digits" / "parity.json").read_text())
    assert parity["verdict"] == "PASS"
    assert parity["data"]["name"] == "mnist"
    assert parity["margin_pt"] == 0.05
    least = {"fp32": 10_000, "fp16": 9_999, "int8": 9_995, "int8-cpu": 9_995}
    assert {c["precision"] for c in parity["cells"]} == set(least)
    assert all(c["agreement"] >= least[c["precision"]] and c["n"] == 10_000 for c in parity["cells"])


def test_the_reference_release_passes_here(hwr, tmp_path: Path) -> None:
    copy = tmp_path / "digits"
    shutil.copytree(ROOT / "exported" / "digits", copy, ignore=shutil.ignore_patterns("engines"))
    result = hwr("parity", copy, "--json")
    document = json.loads(result.stdout)
    assert (result.exit_code, document["verdict"]) == (0, "PASS"), result.output
    assert all(c["verdict"] == "PASS" for c in document["cells"])
    floats = [c for c in document["cells"] if c["precision"] in ("fp32", "fp16")]
    told = json.loads((ROOT / "docs" / "figures" / "evaluate-digits-edge-m.json").read_text())["accuracy"]
    assert all(c["agreement"] == 10_000 and c["accuracy"] == told for c in floats)
