"""Which TensorRT product is installed, and which one a target needs.

TensorRT-RTX builds without a GPU for the compute capabilities of its 1.7.1 builder (its `ComputeCapability` enum);
TensorRT itself builds only for the GPU it runs on: target `native`.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from types import ModuleType
from typing import NamedTuple

from hwr_export.engine.targets import RTX, TENSORRT, ProductName, find_targets, refusal
from hwr_export.errors import EngineError, UsageError

PRODUCTS: dict[ProductName, str] = {"tensorrt_rtx": "rtx", "tensorrt": "trt"}  # module -> extra
DEFAULT_TARGETS = ("sm80", "sm86", "sm89", "sm120")


class Product(NamedTuple):
    """An imported TensorRT module."""

    name: ProductName
    module: ModuleType

    @property
    def version(self) -> str:
        return str(self.module.__version__)


def installed_products() -> list[ProductName]:
    """Return the products whose module can be found."""
    return [name for name in PRODUCTS if importlib.util.find_spec(name) is not None]


def load_product(wanted: str | None, targets: Sequence[str]) -> Product:
    """Import the product asked for, else the one that the targets need.

    Raises:
        UsageError: unknown target, product not installed, or a target that it does not build for.
    """
    rows = find_targets(targets)
    on_device = any(row.product == TENSORRT for row in rows)
    name: ProductName = TENSORRT if wanted == TENSORRT or (not wanted and on_device) else RTX
    for row in rows:
        if reason := refusal(row, name):
            raise UsageError(reason)
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"{name} is not installed: pip install 'hwr-export[{PRODUCTS[name]}]'")
    try:
        return Product(name, importlib.import_module(name))
    except Exception as err:  # bindings raise whatever their library loader meets
        first = (str(err).splitlines() or [""])[0]
        raise EngineError(f"{name} is installed but cannot be imported: {type(err).__name__}: {first}") from err
