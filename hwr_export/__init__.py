"""hwr-export: a handwriting recogniser from PyTorch to an embedded scanner, with proof at every step.

Modules above the torch border (`models`, `checkpoint`, `program`, `onnx_model`, `export`, `runners.eager`)
may import torch; every other module must not. `ARCHITECTURE.md` draws the border, import-linter keeps it.
"""

import os

__version__ = "0.1.0"

# Since 1.29 ONNX Runtime reports every process and session to its maker, or keeps that in a file until there is a
# network, unless this is set when it is imported; its own `disable_telemetry_events` comes too late for the first.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__all__ = ["__version__"]
