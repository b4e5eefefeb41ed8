"""What a model's code remembers between runs, in `functools.lru_cache` or a dictionary of its own: not of the engine's.

A run on the meta device would leave tensors without values there, for the caller's own model to find; and a run that finds
what another has left makes fewer calls than the one before.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from torch import Tensor

from pruning_core import tree

_KIND = type(functools.lru_cache(lambda: None))


class Memo(Protocol):
    """A function behind functools.lru_cache, or what does as one."""

    def cache_clear(self) -> None: ...


class Entries:
    """What comes into a dictionary (of a class, a Python module) after now."""

    def __init__(self, held: dict[Any, Any]) -> None:
        self.held, self.before = held, frozenset(held)

    def cache_clear(self) -> None:
        for key in [key for key in self.held if key not in self.before]:
            del self.held[key]


def remembering(tensors: Iterable[Tensor]) -> tuple[Memo, ...]:
    """The functions of this process that remember one of these. Looks through all objects: some 0.1 s, if there are any."""
    wanted = {id(tensor) for tensor in tensors}
    if not wanted:
        return ()
    memos = [thing for thing in gc.get_objects() if type(thing) is _KIND]
    return tuple(memo for memo in memos if any(id(tensor) in wanted for tensor in _held_by(memo)))


def _held_by(memo: Memo) -> Iterator[Tensor]:
    """Of a bounded one the collector sees what it remembers; an unbounded one has a dictionary."""
    for held in gc.get_referents(memo):
        yield from tree.tensors(held)


def emptied(tensors: Sequence[Tensor], own: Iterable[object]) -> tuple[Memo, ...]:
    """The dictionaries that hold one of these, without it now. Those of `own` are left, and attributes of objects."""
    wanted, left = {id(tensor) for tensor in tensors}, {id(thing) for thing in own}
    found: list[Memo] = []
    for held in gc.get_referrers(*tensors) if tensors else ():
        if type(held) is dict and id(held) not in left and not _are_attributes(held):
            for key in [key for key, value in held.items() if id(value) in wanted]:
                del held[key]
            found.append(Entries(held))
    return tuple(found)


def _are_attributes(held: dict[Any, Any]) -> bool:
    """Whether this is the `__dict__` of an object, a Python module or a class (where to write past it is not safe)."""
    for owner in gc.get_referrers(held):
        if isinstance(owner, type):
            return True
        with contextlib.suppress(Exception):  # whatever an object's code does when it is asked
            if vars(owner) is held:
                return True
    return False


def forget(memos: Iterable[Memo]) -> None:
    for memo in memos:
        memo.cache_clear()


@contextlib.contextmanager
def forgotten(memos: Iterable[Memo]) -> Iterator[None]:
    """They remember nothing from before, and nothing of what is done inside."""
    forget(memos)
    try:
        yield
    finally:
        forget(memos)
