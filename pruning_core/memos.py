"""What a model's code remembers between runs in `functools.lru_cache`: switched off while the engine runs the model.

A run on the meta device would leave tensors without values there, for the caller's own model to find; and a run that finds
what another has left makes fewer calls than the one before.
"""

from __future__ import annotations

import contextlib
import functools
import gc
from collections.abc import Iterable, Iterator
from typing import Any

from torch import Tensor

from pruning_core import tree

Memo = Any  # a function behind functools.lru_cache
_KIND = type(functools.lru_cache(lambda: None))


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
