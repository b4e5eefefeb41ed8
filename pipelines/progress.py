"""Where long work says how far it is. Silent, unless the CLI puts a display here."""

import contextlib
from collections.abc import Iterator
from typing import Protocol


class Display(Protocol):
    def start(self, work: str, steps: int) -> None: ...
    def advance(self, work: str) -> None: ...
    def reach(self, work: str, done: int, steps: int) -> None:
        """`done` of `steps`, whatever was said before."""

    def finish(self, work: str) -> None:
        """It is done, also where fewer steps were taken than announced."""


class Silent:
    def start(self, work: str, steps: int) -> None: ...
    def advance(self, work: str) -> None: ...
    def reach(self, work: str, done: int, steps: int) -> None: ...
    def finish(self, work: str) -> None: ...


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
