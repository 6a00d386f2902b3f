"""hwr-export: a handwriting recogniser from PyTorch to an embedded scanner, with proof at every step.

Modules above the torch border (`models`, `checkpoint`, `program`, `onnx_model`, `export`, `runners.eager`)
may import torch; every other module must not. `ARCHITECTURE.md` draws the border, import-linter keeps it.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
