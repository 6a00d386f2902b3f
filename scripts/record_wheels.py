"""Ask pip for the wheels that a scanner with an ARM processor would get: docs/figures/wheels-aarch64.json.

    scripts/record_wheels.py [-o docs/figures/wheels-aarch64.json]

For each Python that a device may have, pip resolves the base install with every extra of a scanner from wheels alone;
nothing is installed, and where a wheel is missing this fails. A test reads the names, so that it needs no network.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import tomllib
from packaging.requirements import Requirement

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.files import json_bytes, write_atomic  # noqa: E402

PYTHONS = ("3.10", "3.11", "3.12", "3.13")
EXTRAS = ("cpu", "scan", "forms")
# What the oldest systems load: JetPack 6 has glibc 2.35, Raspberry Pi OS 2.36.
GLIBC = 35
PLATFORMS = [f"manylinux_2_{minor}_aarch64" for minor in range(GLIBC, 16, -1)] + ["manylinux2014_aarch64"]


def requirements(python: str) -> list[Requirement]:
    """Return what a scanner with this Python needs, by the project's own metadata."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for e in EXTRAS for line in project["optional-dependencies"][e])]
    there = {"python_version": python, "platform_machine": "aarch64"}
    found = [Requirement(line) for line in lines]
    return [r for r in found if r.marker is None or r.marker.evaluate(there)]


def wheels(python: str) -> list[str]:
    """Return the file names that pip chooses."""
    wanted = []
    for requirement in requirements(python):
        requirement.marker = None  # pip would evaluate it for the Python that runs it
        wanted.append(str(requirement))
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--dry-run"]
        command += ["--ignore-installed", "--only-binary", ":all:", "--implementation", "cp"]
        command += ["--python-version", python, "--target", folder, "--report", str(report)]
        command += [option for platform in PLATFORMS for option in ("--platform", platform)]
        subprocess.run([*command, *wanted], check=True)
        chosen = json.loads(report.read_text())["install"]
    return sorted((one["download_info"]["url"].rsplit("/", 1)[-1] for one in chosen), key=str.lower)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "figures" / "wheels-aarch64.json")
    arguments = parser.parse_args()
    document = {
        "schema": 1,
        "command": "scripts/record_wheels.py",
        "extras": list(EXTRAS),
        "glibc": f"2.{GLIBC}",
        "pythons": {python: wheels(python) for python in PYTHONS},
    }
    write_atomic(arguments.output, json_bytes(document))
    for python, names in document["pythons"].items():
        print(f"Python {python}: {len(names)} wheels")


if __name__ == "__main__":
    main()
