"""Install what a scanner needs into new environments and write what takes how much: docs/figures/install-size.json.

    scripts/install_size.py [-o docs/figures/install-size.json]

Each combination of extras gets an environment of its own; what counts are the bytes on the disk of each distribution's
files, compiled Python included. pip, which nothing needs afterwards, is counted apart.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from hwr_export.files import json_bytes, write_atomic  # noqa: E402

EXTRAS = ("cpu", "cpu,scan", "cpu,scan,forms")
NOT_NEEDED = {"pip", "setuptools"}
# Runs in the new environment: the bytes that each distribution's files take there, by its name and version.
SIZES = """
import importlib.metadata, json
found = {}
for each in importlib.metadata.distributions():
    paths = [each.locate_file(file) for file in each.files or ()]
    size = sum(path.stat().st_size for path in {p.resolve() for p in paths} if path.is_file())
    found[each.metadata["Name"]] = {"version": each.version, "size_bytes": size}
print(json.dumps(found))
"""


def measure(extras: str, folder: Path) -> dict:
    """Return what an installation with these extras takes, distribution by distribution, largest first."""
    venv.create(folder, with_pip=True)
    python = folder / "bin" / "python"
    command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", f"{ROOT}[{extras}]"]
    subprocess.run(command, check=True)
    told = subprocess.run([python, "-c", SIZES], check=True, capture_output=True, text=True).stdout
    found = json.loads(told)
    packages = {
        name: found[name]
        for name in sorted(found, key=lambda name: -found[name]["size_bytes"])
        if name.lower() not in NOT_NEEDED
    }
    on_disk = sum(path.lstat().st_size for path in (folder / "lib").rglob("*") if path.is_file())
    return {
        "extras": extras,
        "size_bytes": sum(package["size_bytes"] for package in packages.values()),
        "with_pip_bytes": on_disk,
        "packages": packages,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=ROOT / "docs" / "figures" / "install-size.json")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        installations = [measure(extras, Path(folder) / str(number)) for number, extras in enumerate(EXTRAS)]
    document = {
        "schema": 1,
        "command": "scripts/install_size.py",
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "installations": installations,
    }
    write_atomic(arguments.output, json_bytes(document))
    for one in installations:
        print(f"{one['extras']}: {one['size_bytes'] / 1e6:.0f} MB, {one['with_pip_bytes'] / 1e6:.0f} MB with pip")


if __name__ == "__main__":
    main()
