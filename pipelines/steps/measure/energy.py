"""Energy of a call, from the counters of the processor packages (RAPL) where the system shows them."""

import time
from collections.abc import Callable
from pathlib import Path

POWERCAP = Path("/sys/class/powercap")
SECONDS = 1.0  # the counters are coarse, so calls are made for so long


def energy_mj(run: Callable[[], object], powercap: Path = POWERCAP, seconds: float = SECONDS) -> float | None:
    """Millijoules per call, of the whole machine's processors: what else runs is in it. None where nothing is counted."""
    counters = [folder for folder in sorted(powercap.glob("intel-rapl:*")) if folder.name.count(":") == 1]
    before = [_microjoules(counter) for counter in counters]
    if not counters or None in before:
        return None  # often readable for root only
    calls, end = 0, time.perf_counter() + seconds
    while not calls or time.perf_counter() < end:
        run()
        calls += 1
    used = 0
    for counter, first in zip(counters, before, strict=True):
        last = _microjoules(counter)
        if first is None or last is None:
            return None
        used += last - first if last >= first else last - first + _range(counter)  # it starts again at 0
    return used / calls / 1e3


def _microjoules(counter: Path) -> int | None:
    try:
        return int((counter / "energy_uj").read_text())
    except (OSError, ValueError):
        return None


def _range(counter: Path) -> int:
    return int((counter / "max_energy_range_uj").read_text())
