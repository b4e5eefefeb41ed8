"""Where long work says how far it is. Silent, unless the CLI puts a display here."""

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Display(Protocol):
    def start(self, work: str, steps: int) -> None: ...
    def advance(self, work: str) -> None: ...


class Silent:
    def start(self, work: str, steps: int) -> None: ...
    def advance(self, work: str) -> None: ...


_display: Display = Silent()


def display() -> Display:
    return _display


@contextlib.contextmanager
def shown_on(new: Display) -> Iterator[None]:
    global _display
    old, _display = _display, new
    try:
        yield
    finally:
        _display = old
