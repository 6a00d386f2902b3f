"""A device of fakes: one GPU, one TensorRT, one driver, each of which can be changed between two runs."""

import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from hwr_export.engine import device as device_module
from tests.engine.fake_trt import FakeTrt
from tests.engine.test_api import VERSIONS
from tests.fake_cuda import FakeCuda

RTX = VERSIONS[2]


class Machine:
    """A device of fakes; attributes can be changed between two runs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, version: str) -> None:
        self._patch, self.version = monkeypatch, version
        self.cuda, self.trt = FakeCuda(), FakeTrt(version, FakeCuda())
        monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        self.driver = folder / "version"
        self.installs("540.4.0")
        monkeypatch.setattr(device_module, "DRIVER", self.driver)
        self.has()

    def installs(self, driver: str) -> None:
        self.driver.write_text(f"NVRM version: NVIDIA UNIX Open Kernel Module for aarch64  {driver}  Release Build\n")

    def has(self, *faults: str, version: str = "", cuda: FakeCuda | None = None) -> None:
        """Fail at these steps from now on; be another version of TensorRT; be another GPU."""
        self.version = version or self.version
        self.cuda = cuda or FakeCuda()
        self.cuda.device["minor"] = 6 if self.version == RTX else 7  # TensorRT-RTX builds for no Jetson
        self.trt = FakeTrt(self.version, self.cuda, faults)
        self._patch.setattr("hwr_export.engine.build._refused", [])
        self.trt.__spec__ = ModuleSpec(self.trt.__name__, None)
        for product in ("tensorrt", "tensorrt_rtx"):
            self._patch.delitem(sys.modules, product, raising=False)
        self._patch.setitem(sys.modules, self.trt.__name__, self.trt)
        self._patch.setattr("hwr_export.runners.cuda.load_cuda", lambda: self.cuda)

    @property
    def product(self) -> str:
        return self.trt.__name__
