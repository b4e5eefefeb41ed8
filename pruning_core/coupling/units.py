"""Unit ids on tensor axes, and the links between them.

Every axis of length n carries n unit ids; 0 means fixed for ever. Rules say which ids an output carries and which ids
are linked: removed together or not at all. Linked ids form connected components; a component is what can be cut.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

Ids = NDArray[np.int64]
Axes = tuple[Ids, ...]


@lru_cache(maxsize=4096)
def fixed(n: int) -> Ids:
    """The axis of length n of which nothing can be removed. Shared and read-only."""
    ids = np.zeros(n, dtype=np.int64)
    ids.flags.writeable = False
    return ids


def is_fixed(ids: Ids) -> bool:
    return not (len(ids) and ids[0]) and (ids is fixed(len(ids)) or not ids.any())


def all_fixed(shape: tuple[int, ...]) -> Axes:
    return tuple(fixed(n) for n in shape)


@dataclass(frozen=True, slots=True, eq=False)
class Lock:
    """Ids that can never be removed, and why."""

    ids: Ids
    reason: str


@dataclass(slots=True, eq=False)
class Links:
    """What the rules found out while walking the calls: links, locks, and marks on ids. Append only."""

    size: int = 1  # the number of ids handed out; id 0 is taken
    pairs: list[tuple[Ids, Ids]] = field(default_factory=list)
    locks: list[Lock] = field(default_factory=list)
    reads: list[Ids] = field(default_factory=list)
    emits: list[tuple[Ids, int]] = field(default_factory=list)  # of how many blocks of rows each
    free_starts: list[int] = field(default_factory=list)  # id ranges of the axes of constant fills, ascending
    free_stops: list[int] = field(default_factory=list)
    balances: dict[int, NDArray[np.int64]] = field(default_factory=dict)  # call -> ids whose rows lose the same number
    approximations: list[tuple[Ids, str]] = field(default_factory=list)
    where: Callable[[], str] = lambda: ""

    def fresh(self, n: int) -> Ids:
        ids = np.arange(self.size, self.size + n, dtype=np.int64)
        self.size += n
        return ids

    def free(self, n: int) -> Ids:
        """Ids of an axis along which all entries are alike (a constant fill): it takes the width of what it meets."""
        if n == 1:
            return fixed(1)
        self.free_starts.append(self.size)
        self.free_stops.append(self.size + n)
        return self.fresh(n)

    def is_free(self, ids: Ids) -> bool:
        """Whether these ids (by their first) still stand for a constant fill."""
        if not len(ids):
            return False
        k = bisect_right(self.free_starts, int(ids[0])) - 1
        return k >= 0 and int(ids[0]) < self.free_stops[k]

    def stand_in(self, ids: Ids) -> NDArray[np.bool_]:
        """[n] flags: ids of constant fills, or negative ones: they stand for whatever they are tied to."""
        starts, stops = np.array([0, *self.free_starts]), np.array([0, *self.free_stops])
        k = np.searchsorted(starts, np.maximum(ids, 0), side="right") - 1
        return np.asarray((ids < 0) | (ids < stops[k]))

    def join(self, a: Ids, b: Ids) -> Ids:
        """Position by position: removed together or not at all. A fixed partner locks. Returns the ids to carry on."""
        if a is b:
            return a
        if is_fixed(a) and is_fixed(b):
            return a
        if (a == 0).any() or (b == 0).any():
            self.lock(np.concatenate([a[b == 0], b[a == 0]]), f"tied to a fixed axis by {self.where()}")
            both = (a != 0) & (b != 0)
            self.pairs.append((a[both], b[both]))
            return np.where(a == 0, a, np.where(b == 0, b, a))
        self.pairs.append((a, b))
        return a

    def lock(self, ids: Ids, reason: str) -> None:
        ids = ids[ids != 0] if not (len(ids) and ids.all()) else ids
        if len(ids):
            self.locks.append(Lock(ids, reason))

    def lock_axes(self, axes: Axes, reason: str) -> None:
        for ids in axes:
            if not is_fixed(ids):
                self.lock(ids, reason)

    def read(self, ids: Ids) -> None:
        """Something sums over these ids or mixes them: removing one takes its part out of that sum."""
        if not is_fixed(ids):
            self.reads.append(ids)

    def emit(self, ids: Ids, blocks: int = 1) -> None:
        """A contraction or a table look-up produces these channels; with blocks, each block of the rows has its own."""
        if not is_fixed(ids):
            self.emits.append((ids, blocks))

    def approximate(self, ids: Ids, reason: str) -> None:
        """Statistics run over these ids, so that removing some changes what the others see."""
        if not is_fixed(ids):
            self.read(ids)
            self.approximations.append((ids, reason))

    def tie_uneven(self, labels: Ids) -> bool:
        """Tie the rows of those balances that something else ties in part, or that balance the same channels otherwise.

        No choice of channels would keep all their numbers equal. Until none is left: a tie may make others uneven.
        """
        found = False
        sets = [frozenset(frozenset(row.tolist()) for row in labels[rows]) for rows in self.balances.values()]
        for rows, own in zip(self.balances.values(), sets, strict=True):
            mine = np.sort(labels[rows], axis=1)
            crossed = any(other != own and frozenset().union(*other) & frozenset().union(*own) for other in sets)
            if (mine != mine[0]).any() and (crossed or len(np.unique(mine)) < mine.size):
                self.pairs += [(rows[0], row) for row in rows[1:]]
                found = True
        return found

    def components(self) -> Ids:
        """labels[id] = the number of its connected component."""
        if self.pairs:
            rows = np.concatenate([a for a, _ in self.pairs])
            cols = np.concatenate([b for _, b in self.pairs])
        else:
            rows = cols = np.empty(0, dtype=np.int64)
        graph = coo_matrix((np.ones(len(rows), dtype=np.int8), (rows, cols)), shape=(self.size, self.size))
        labels: Ids = connected_components(graph, directed=False)[1].astype(np.int64)
        return labels
