"""Name -> function. A duplicate is an error; an unknown name says which one is near."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from pruning_core.errors import SpecError, nearest

F = TypeVar("F", bound=Callable[..., object])


class Registry(Generic[F]):
    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, F] = {}

    def register(self, fn: F) -> F:
        """Use as a decorator: the function's own name is the name, without the `_` that keeps it off a Python keyword."""
        name = str(getattr(fn, "__name__", fn)).removesuffix("_")
        if name in self._entries:
            raise SpecError(f"{self.kind} {name!r} exists", fn.__module__, "pick another name")
        self._entries[name] = fn
        return fn

    def __getitem__(self, name: str) -> F:
        if name not in self._entries:
            raise SpecError(f"{self.kind} {name!r} is unknown", self.kind, nearest(name, self._entries))
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries
