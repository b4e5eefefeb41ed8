"""Groups that must keep equal shares, as code that reads one layer's width off another's wants it.

An allocator sees such a set as one group whose channels are lots: some channels of each part that go at once. So what
it decides, a ratio that is named for any part, floors, rounding and costs hold for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

import numpy as np

from pruning_core.allocators import ScoredGroup
from pruning_core.cost_model import Counted
from pruning_core.coupling.analysis import Analysis
from pruning_core.coupling.groups import ChannelGroup, blocks_of
from pruning_core.policies import combine
from pruning_core.spec import PruningSpec

Even = frozenset[frozenset[str]]  # sets of group names, no name in two of them


def joined(sets: Iterable[frozenset[str]]) -> Even:
    """Sets that have a name in common become one."""
    found: list[frozenset[str]] = []
    for names in sets:
        meeting = [other for other in found if other & names]
        found = [other for other in found if not other & names] + [names.union(*meeting)]
    return frozenset(found)


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Group = TypeVar("_Group", bound=_Named)


def _gathered(groups: Sequence[_Group], even: Even) -> list[list[_Group]]:
    """The groups of every set, in the place of the first; the others alone."""
    found: dict[object, list[_Group]] = {}
    for group in groups:
        found.setdefault(next((names for names in even if group.name in names), group.name), []).append(group)
    return list(found.values())


def as_one(groups: Sequence[ScoredGroup], even: Even, spec: PruningSpec) -> list[ScoredGroup]:
    """The groups of every set as one group, the others as they are."""
    return [parts[0] if len(parts) == 1 else _merged(parts, spec) for parts in _gathered(groups, even)]


def _merged(parts: Sequence[ScoredGroup], spec: PruningSpec) -> ScoredGroup:
    lots = math.gcd(*(part.channels // part.lot for part in parts))
    by_lot = [part.ascending.reshape(lots, -1) for part in parts]  # the k-th lot of each part holds its k-th lowest
    fold = np.mean if spec.group_policy == "average" else np.sum
    rows = [fold(scores, axis=1) for scores in by_lot]
    return ScoredGroup(
        name=parts[0].name,
        layers=tuple(dict.fromkeys(name for part in parts for name in (*part.layers, part.name))),  # what may be named
        scores=np.sum([scores.sum(axis=1) for scores in by_lot], axis=0)
        if spec.budget  # damages add up
        else combine(rows, spec.normalizer, spec.policy),
        blocks=None,
        positions=sum(part.positions * part.channels // lots for part in parts),
        structure=tuple(sorted(kind for part in parts for kind in part.structure)),
        carriers=tuple(dict.fromkeys(name for part in parts for name in part.carriers)),
        parts=tuple(parts),
        read_strides=frozenset(stride * p.channels // lots for p in parts for stride in p.read_strides),
        originals=sum(p.full * p.positions for p in parts) / sum(p.channels * p.positions for p in parts),
    )


def counts_of(group: ScoredGroup, count: int) -> dict[str, int]:
    """What a number of kept channels of a group means for each of its parts."""
    return {part.name: count * part.channels // group.channels for part in group.parts or (group,)}


def counted(groups: Sequence[ChannelGroup], even: Even, analysis: Analysis) -> list[Counted]:
    """What the cost model needs to know of the groups that `as_one` makes, in their order."""
    found: list[Counted] = []
    for parts in _gathered(groups, even):
        blocks = [blocks_of(part, analysis) for part in parts]
        lots = [1 if block is None else int(block.max()) + 1 for block in blocks]
        labels = np.concatenate([part.labels for part in parts])
        if len(parts) == 1:
            found.append(Counted(labels, len(labels), lots[0]))
        else:
            found.append(Counted(labels, math.gcd(*(p.channels // lot for p, lot in zip(parts, lots, strict=True)))))
    return found
