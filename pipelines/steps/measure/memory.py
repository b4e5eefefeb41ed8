"""How much more memory the process holds, at its highest, because a model is there and is called."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

import torch

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
RESET_PEAK = "5"  # man 5 proc: resets the highest resident size to the present one


def peak_memory(make: Callable[[], Callable[[], object]], device: str) -> int | None:
    """Bytes by which loading a model (`make`) and calling it once raises the highest resident memory of this process.

    On a GPU: the highest memory that torch holds there. Pages that the process had free already do not count, so this
    is a lower bound for a process of its own. None where the system does not tell.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        make()()
        return torch.cuda.max_memory_allocated() - before
    _give_back_free_pages()
    try:
        CLEAR.write_text(RESET_PEAK)
        before = _resident("VmRSS")
        make()()
        return max(0, _resident("VmHWM") - before)
    except (OSError, StopIteration):
        return None


def _resident(name: str) -> int:
    line = next(line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def _give_back_free_pages() -> None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return  # another C library than glibc
