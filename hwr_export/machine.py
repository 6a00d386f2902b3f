"""What measures, without naming it: processor, clocks, load, and what went on beside the measurement.

Read from Linux's /proc and /sys; what a machine does not tell is None, never guessed.
"""

import os
import platform
import resource
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CPU = Path("/sys/devices/system/cpu")
POWERCAP = Path("/sys/class/powercap")
HWMON = Path("/sys/class/hwmon")  # the Jetsons' INA3221 shows up here
STEAL_COLUMN = 8  # of the line `cpu` in /proc/stat, after its name (proc(5))

STOLEN, UNSTEADY, BUSY = 0.02, 0.15, 0.5  # of time; of the yardstick's rounds; of a core beside what we use


def machine_facts() -> dict[str, Any]:
    """Describe the machine: what does not change while something is measured."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count() or 1,
        "affinity": sorted(os.sched_getaffinity(0)),
        "architecture": platform.machine(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "memory_mib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20,
        "governor": _text(CPU / "cpu0/cpufreq/scaling_governor"),
        "power_mode": _power_mode(),
    }


@dataclass(frozen=True)
class Moment:
    """The machine's counters at one moment; the difference of two says what went on between."""

    at_s: float
    load_average_1min: float
    clock_mhz: float | None
    stolen_s: float | None
    throttled: int | None
    energy_j: float | None

    @classmethod
    def now(cls) -> "Moment":
        return cls(time.monotonic(), os.getloadavg()[0], _clock(), _stolen(), _throttled(), energy_j())


def watched(start: Moment, before: Moment, after: Moment, threads: int, yardstick_spread: float) -> dict[str, Any]:
    """Return what happened between two moments, and as sentences what makes the machine too noisy to believe.

    `start` is when the run began: the load of then is others'. `yardstick_spread` is by what fraction rounds of
    unchanging work differed.
    """
    took = max(after.at_s - before.at_s, 1e-9)
    stolen = _difference(after.stolen_s, before.stolen_s)
    share = None if stolen is None else stolen / took / (os.cpu_count() or 1)
    throttled = _difference(after.throttled, before.throttled)
    noisy = []
    if start.load_average_1min > BUSY:
        noisy.append(f"the load average was {start.load_average_1min:.2f} before anything was measured")
    if share is not None and share > STOLEN:
        noisy.append(f"the hypervisor took {100 * share:.0f} % of the processors' time")
    if throttled:
        noisy.append(f"the processor was throttled {throttled:.0f} times")
    if yardstick_spread > UNSTEADY:
        noisy.append(f"unchanging work differed by {100 * yardstick_spread:.0f} % between rounds")
    return {
        "seconds": round(took, 1),
        "threads": threads,
        "load_average_1min": [round(before.load_average_1min, 2), round(after.load_average_1min, 2)],
        "clock_mhz": [before.clock_mhz, after.clock_mhz],
        "stolen_fraction": None if share is None else round(share, 4),
        "throttled": throttled,
        "yardstick_spread": round(yardstick_spread, 4),
        "noisy": noisy,
    }


def energy_j() -> float | None:
    """Return joules counted so far by the processor packages (RAPL), None where no counter can be read."""
    counters = sorted(POWERCAP.glob("*-rapl:[0-9]/energy_uj"))
    try:
        return sum(int(c.read_text()) for c in counters) / 1e6 if counters else None
    except OSError:  # root alone may read them since 2020 (CVE-2020-8694)
        return None


def peak_rss_mib() -> float:
    """Return the most memory that this process ever held, in MiB.

    Not from getrusage: its figure is inherited from the process that started this one.
    """
    for line in (_text(Path("/proc/self/status")) or "").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _cpu_model() -> str:
    for line in (_text(Path("/proc/cpuinfo")) or "").splitlines():
        if line.startswith(("model name", "Model", "Hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _clock() -> float | None:
    """Return the mean clock of all processors in MHz."""
    lines = (_text(Path("/proc/cpuinfo")) or "").splitlines()
    clocks = [float(line.partition(":")[2]) for line in lines if line.startswith("cpu MHz")]
    clocks = clocks or [int(p.read_text()) / 1000 for p in sorted(CPU.glob("cpu[0-9]*/cpufreq/scaling_cur_freq"))]
    return round(sum(clocks) / len(clocks), 1) if clocks else None


def _stolen() -> float | None:
    first = (_text(Path("/proc/stat")) or "").partition("\n")[0].split()
    return int(first[STEAL_COLUMN]) / os.sysconf("SC_CLK_TCK") if len(first) > STEAL_COLUMN else None


def _throttled() -> int | None:
    counters = sorted(CPU.glob("cpu[0-9]*/thermal_throttle/core_throttle_count"))
    return sum(int(c.read_text()) for c in counters) if counters else None


def _power_mode() -> str | None:
    """Return the power mode of a Jetson, as `nvpmodel` left it."""
    return _text(Path("/var/lib/nvpmodel/status"))


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
