"""Freed memory goes back to the system: glibc keeps it, for every thread on its own."""

from __future__ import annotations

import ctypes
from collections.abc import Callable


def _trim() -> Callable[[int], int] | None:
    try:
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
    except (AttributeError, OSError, TypeError):  # another C library, another system
        return None
    return found


_TRIM = _trim()


def give_back() -> None:
    """Hand back what is free, where the C library can. Takes milliseconds."""
    if _TRIM is not None:
        _TRIM(0)
