"""The table of machines agrees with the builder that is installed and with itself."""

import pytest

from hwr_export.engine.products import load_product
from hwr_export.engine.targets import NATIVE, RTX, RTX_CAPABILITIES, TARGETS, TENSORRT, find_targets, refusal
from hwr_export.errors import UsageError
from tests.conftest import one_json


def test_rtx_capabilities_are_those_of_its_builder() -> None:
    builder = load_product(RTX, ["sm86"]).module.ComputeCapability.__members__
    assert {c.upper() for c in RTX_CAPABILITIES} == set(builder) - {"NONE", "CURRENT"}


def test_each_name_stands_for_a_capability_of_the_same_product() -> None:
    for target in TARGETS.values():
        capability = TARGETS[target.capability]
        assert (target.product, target.precisions) == (capability.product, capability.precisions)
        assert target.device
        assert target.versions
        assert target.source


@pytest.mark.parametrize("name", TARGETS)
def test_exactly_one_product_builds_a_plan_from_here_or_none(name: str) -> None:
    target = TARGETS[name]
    assert (refusal(target, RTX) == "") == (target.product == RTX)
    assert (refusal(target, TENSORRT) == "") == (name == NATIVE)


def test_unknown_names_list_the_known() -> None:
    with pytest.raises(UsageError, match=r"no target 'rtx-3091'; there are: sm75, .*rtx-3090.*jetson-orin-nano"):
        find_targets(["sm86", "rtx-3091"])


def test_the_command_prints_the_table(hwr) -> None:
    document = one_json(hwr("targets", "--json").stdout)
    rows = {t["name"]: t for t in document["targets"]}
    assert list(rows) == list(TARGETS)
    assert rows["jetson-orin-nano"]["built"] == "on the device"
    assert "TensorRT 10.3" in rows["jetson-orin-nano"]["versions"]
    assert rows["t4"]["precisions"] == ["fp16"]
    shown = hwr("targets")
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in TARGETS)


def test_a_jetson_is_refused_with_what_to_do(release_dir, hwr) -> None:
    result = hwr("trt", release_dir, "--target", "jetson-agx-orin", "--product", "tensorrt_rtx")
    assert result.exit_code == 2
    assert "build on it: hwr-export trt RELEASE --native" in result.stderr
