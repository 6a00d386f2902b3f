"""Every TensorRT name in the engine's code exists in each product and version that reaches it.

`trt_api.json` holds the names and which of the three API snapshots (10.3.0, 11.4.0, RTX 1.7.1) have them;
`scripts/trt_api.py FOLDER` makes it from the snapshots.
"""

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import hwr_export.engine
import hwr_export.runners

VERSIONS = ("tensorrt-10.3.0", "tensorrt-11.4.0", "tensorrt_rtx-1.7.1")
TABLE: dict[str, dict[str, bool]] = json.loads((Path(__file__).parent / "trt_api.json").read_text())
ENGINE, RUNNERS = (Path(package.__file__).parent for package in (hwr_export.engine, hwr_export.runners))
FILES = [*sorted(ENGINE.glob("*.py")), RUNNERS / "trt.py", RUNNERS / "trt_log.py"]

# The classes of the variables that hold TensorRT's objects, in any of the engine's functions.
CLASSES = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "error": "ParserError",
    "tensor": "ITensor",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "settings": "IRuntimeConfig",
    "kernels": "IRuntimeCache",
    "inspector": "EngineInspector",
    "cache": "ITimingCache",
}
# Elsewhere such a name is no TensorRT object.
HOLDERS = ("build.py", "callbacks.py", "inspector.py", "trt.py", "trt_log.py")
RTX_ONLY = {"_set_targets", "_rtx_settings", "_save_cache"}  # functions called behind a test for the product
BEHIND = ("product.name == RTX", "self.backend == RTX")
# Gone in 11: precision flags, calibrators, and everything around weak typing.
REMOVED = ("FP16", "INT8", "BF16", "FP8", "calibrat", "PRECISION_CONSTRAINTS", "algorithm_selector", "EXPLICIT_BATCH")


def chain(node: ast.expr) -> list[str]:
    """Return `a.b.c` as its parts, or nothing where it does not begin with a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return [node.id, *reversed(parts)] if isinstance(node, ast.Name) and parts else []


def names(tree: ast.AST, rtx_only: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield (TensorRT name, whether TensorRT-RTX alone gets there) for all that a module uses."""
    for node in ast.iter_child_nodes(tree):
        inside = rtx_only or (isinstance(node, ast.FunctionDef) and node.name in RTX_ONLY)
        if isinstance(node, ast.ClassDef):
            for base in filter(lambda b: b and b[0] == "trt", map(chain, node.bases)):
                methods = [m.name for m in node.body if isinstance(m, ast.FunctionDef)]
                overrides = [m for m in methods if f"{base[1]}.{m}" in TABLE]
                assert overrides, f"{node.name} overrides nothing of {base[1]}"
                yield from ((f"{base[1]}.{m}", inside) for m in overrides)
        if isinstance(node, ast.Attribute) and (parts := chain(node)):
            if parts[0] == "trt" and not parts[1].startswith("__"):
                yield ".".join(parts[1:]), inside
                continue
            if parts[0] in CLASSES and not parts[1].startswith("__"):
                yield f"{CLASSES[parts[0]]}.{parts[1]}", inside
        yield from names(node, inside)


def used() -> dict[str, bool]:
    """Return every TensorRT name of the engine -> whether TensorRT-RTX alone gets to all its uses."""
    found: dict[str, bool] = {}
    for path in FILES:
        tree = ast.parse(path.read_text())
        if path.name in HOLDERS:
            for name, rtx in names(tree):
                found[name] = found.get(name, True) and rtx
        else:
            found |= {name: rtx for name, rtx in names(tree) if name.split(".")[0] not in CLASSES.values()}
    return found


def test_every_name_that_is_used_exists_where_it_is_reached() -> None:
    found = used()
    assert {"Builder.build_serialized_network", "IProgressMonitor.step_complete", "ParserError.node_name"} <= set(found)
    for name, rtx_alone in found.items():
        assert name in TABLE, f"{name} is not in trt_api.json; look it up in the API snapshots"
        reached = VERSIONS[-1:] if rtx_alone else VERSIONS
        assert all(TABLE[name][version] for version in reached), f"{name}: {TABLE[name]}"


def test_the_table_holds_nothing_that_is_not_used() -> None:
    assert set(TABLE) == set(used())


def test_no_removed_name_is_used() -> None:
    assert [name for name in used() if any(word.lower() in name.lower() for word in REMOVED)] == []


def test_names_of_rtx_alone_are_behind_a_test_for_the_product() -> None:
    nodes = [n for path in FILES if path.name in HOLDERS for n in ast.walk(ast.parse(path.read_text()))]
    tests = [n for n in nodes if isinstance(n, ast.If) and any(test in ast.unparse(n.test) for test in BEHIND)]
    behind = {id(call) for test in tests for statement in test.body for call in ast.walk(statement)}
    calls = [n for n in nodes if isinstance(n, ast.Call) and ast.unparse(n.func).removeprefix("self.") in RTX_ONLY]
    assert len(calls) == len(RTX_ONLY)
    assert all(id(call) in behind for call in calls)


@pytest.mark.parametrize(
    "line",
    [
        "config.set_flag(trt.BuilderFlag.FP16)",
        "config.int8_calibrator = None",
        "trt.IInt8EntropyCalibrator2",
        "builder.build_engine(network, config)",
        "profile.set_shape_of('x')",
    ],
)
def test_a_name_that_one_of_them_lacks_would_be_found(line: str) -> None:
    assert any(name not in TABLE for name, _ in names(ast.parse(line)))


def test_the_installed_product_has_every_name() -> None:
    import tensorrt_rtx

    for name in TABLE:
        found = tensorrt_rtx
        for part in name.split("."):
            found = getattr(found, part)
