"""Freed memory goes back to the system: glibc keeps it, for every thread on its own."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Callable
from pathlib import Path

_STATM = Path("/proc/self/statm")


def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return None
    return found


_TRIM = _trim()


GROWTH = 96 * 2**20  # bytes that may gather between two looks before they are handed back


def give_back() -> int:
    """Hand back what is free, where the C library can; the resident bytes after it. Takes milliseconds."""
    if _TRIM is not None:
        _TRIM(0)
    return _resident()


def give_back_growth(before: int) -> int:
    """The same where more than GROWTH has gathered since `before` bytes were resident; else `before`."""
    return give_back() if _resident() > before + GROWTH else before


def _resident() -> int:
    """Bytes; 0 where the system does not say."""
    try:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()
    except OSError:
        return 0
