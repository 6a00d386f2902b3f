"""Every package that a scanner needs has a wheel for its ARM processor: nothing is compiled on a device."""

import json

import pytest
from packaging.tags import compatible_tags, cpython_tags
from packaging.utils import canonicalize_name, parse_wheel_filename

from tests.conftest import ROOT
from tests.test_docs import load_script

RECORDED = json.loads((ROOT / "docs" / "figures" / "wheels-aarch64.json").read_text())


@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13"])
def test_every_dependency_has_a_wheel_for_aarch64(python: str) -> None:
    script = load_script("record_wheels")
    version = tuple(map(int, python.split(".")))
    platforms = script.PLATFORMS
    loads = {*cpython_tags(version, platforms=platforms), *compatible_tags(version, "cp", platforms)}
    found = {}
    for name in RECORDED["pythons"][python]:
        package, release, _, tags = parse_wheel_filename(name)
        assert tags & loads, f"{name} is not for Python {python} on aarch64"
        found[package] = release
    for requirement in script.requirements(python):
        name = canonicalize_name(requirement.name)
        assert name in found, f"{name} is not recorded for Python {python}: run scripts/record_wheels.py"
        assert found[name] in requirement.specifier, f"{name} {found[name]}: run scripts/record_wheels.py"


def test_no_torch_comes_along_and_opencv_with_forms_alone() -> None:
    for python, names in RECORDED["pythons"].items():
        packages = {parse_wheel_filename(name)[0] for name in names}
        assert not packages & {"torch", "torchvision", "onnx", "model-signing"}, python
    sizes = json.loads((ROOT / "docs" / "figures" / "install-size.json").read_text())
    with_opencv = {one["extras"]: "opencv-python-headless" in one["packages"] for one in sizes["installations"]}
    assert with_opencv == {"cpu": False, "cpu,scan": False, "cpu,scan,forms": True}


def test_a_scanner_takes_at_most_350_mb() -> None:
    sizes = json.loads((ROOT / "docs" / "figures" / "install-size.json").read_text())
    for one in sizes["installations"]:
        assert sum(package["size_bytes"] for package in one["packages"].values()) == one["size_bytes"]
    total = {one["extras"]: one["size_bytes"] for one in sizes["installations"]}
    assert total["cpu,scan"] <= 350e6
