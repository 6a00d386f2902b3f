"""The GPU of this machine, as far as a plan depends on it: asked of CUDA, the driver and, on a Jetson, its tools."""

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from hwr_export.errors import EngineError, RunnerError
from hwr_export.runners import cuda as cuda_python

DRIVER = Path("/proc/driver/nvidia/version")
L4T = Path("/etc/nv_tegra_release")


@dataclass(frozen=True)
class Device:
    """`driver` is the kernel module's version, else the newest CUDA it serves; `l4t` and `power_mode` a Jetson's."""

    gpu: str
    compute_capability: str  # as `sm87`
    driver: str
    l4t: str | None
    power_mode: str | None


def find_device() -> Device:
    """Return the GPU that plans would run on, which is CUDA's first.

    Raises:
        UsageError: cuda-python is not installed.
        EngineError: there is no NVIDIA GPU, or its driver does not work.
    """
    cuda = cuda_python.load_cuda()
    try:
        properties = cuda_python.call(cuda, cuda.cudaGetDeviceProperties, 0)
        newest = cuda_python.call(cuda, cuda.cudaDriverGetVersion)
    except RunnerError as err:
        raise EngineError(f"there is no NVIDIA GPU that works: {err}") from err
    return Device(
        gpu=properties.name.decode().rstrip("\0"),
        compute_capability=f"sm{properties.major}{properties.minor}",
        driver=_kernel_module() or f"CUDA {newest // 1000}.{newest % 1000 // 10}",
        l4t=l4t_release(),
        power_mode=_power_mode(),
    )


def l4t_release() -> str | None:
    """Return the line with a Jetson's L4T release; None elsewhere."""
    return L4T.read_text().splitlines()[0] if L4T.is_file() else None


def _kernel_module() -> str | None:
    """Return the version that the driver's kernel module states; None where it states none."""
    found = re.search(r"Kernel Module.*?\s(\d+\.\d[\d.]*)\s", DRIVER.read_text()) if DRIVER.is_file() else None
    return found[1] if found else None


def _power_mode() -> str | None:
    """Return a Jetson's power mode, as `15W`; None where nothing tells it."""
    tool = shutil.which("nvpmodel")
    if tool is None:
        return None
    done = subprocess.run([tool, "-q"], capture_output=True, text=True, check=False, timeout=30)
    found = re.search(r"NV Power Mode: (\S+)", done.stdout)
    return found[1] if found else None
