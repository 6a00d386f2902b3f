"""Which TensorRT product is installed, and which machine a plan is to run on.

Compute capabilities are those the TensorRT-RTX 1.7.1 builder accepts without a GPU (its `ComputeCapability` enum).
TensorRT itself builds only for the GPU it runs on: target `native`.
"""

import importlib
import importlib.util
from collections.abc import Sequence
from types import ModuleType
from typing import Literal, NamedTuple

from hwr_export.errors import EngineError, UsageError

ProductName = Literal["tensorrt_rtx", "tensorrt"]
PRODUCTS: dict[ProductName, str] = {"tensorrt_rtx": "rtx", "tensorrt": "trt"}  # module -> extra

NATIVE = "native"
RTX_TARGETS = {
    "sm75": "Turing (T4, RTX 20)",
    "sm80": "Ampere (A100)",
    "sm86": "Ampere (RTX 30, A10)",
    "sm89": "Ada (RTX 40, L4)",
    "sm120": "Blackwell (RTX 50)",
    "sm121": "Blackwell (GB10)",
}
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
    """Import the product asked for, else the one that the targets need: `native` is TensorRT's, the rest RTX's.

    Raises:
        UsageError: unknown product, not installed, or a target that it does not build for.
    """
    name: ProductName = "tensorrt" if wanted == "tensorrt" or (not wanted and NATIVE in targets) else "tensorrt_rtx"
    known = (NATIVE,) if name == "tensorrt" else tuple(RTX_TARGETS)
    for target in targets:
        if target not in known:
            raise UsageError(f"{name} does not build for {target!r}; its targets: {', '.join(known)}")
    if importlib.util.find_spec(name) is None:
        raise UsageError(f"{name} is not installed: pip install 'hwr-export[{PRODUCTS[name]}]'")
    try:
        return Product(name, importlib.import_module(name))
    except Exception as err:  # bindings raise whatever their library loader meets
        first = (str(err).splitlines() or [""])[0]
        raise EngineError(f"{name} is installed but cannot be imported: {type(err).__name__}: {first}") from err
