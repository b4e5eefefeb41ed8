"""Groups that must keep equal shares, as code that reads one layer's width off another's wants it.

An allocator sees such a set as one group whose channels are lots: some channels of each part that go at once. So what
it decides, a ratio that is named for any part, floors, rounding and costs hold for all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pruning_core.allocators import ScoredGroup
from pruning_core.coupling.groups import ChannelGroup
from pruning_core.coupling.units import Ids
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


def as_one(groups: Sequence[ScoredGroup], even: Even, spec: PruningSpec) -> list[ScoredGroup]:
    """The groups of every set as one group, in the place of the first; the others as they are."""
    found: list[ScoredGroup] = []
    for group in groups:
        names = next((names for names in even if group.name in names), frozenset())
        parts = [g for g in groups if g.name in names]
        if len(parts) < 2:
            found.append(group)
        elif parts[0] is group:
            found.append(_merged(parts, spec))
    return found


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
        parts=tuple(parts),
    )


def counts_of(group: ScoredGroup, count: int) -> dict[str, int]:
    """What a number of kept channels of a group means for each of its parts."""
    return {part.name: count * part.channels // group.channels for part in group.parts or (group,)}


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """Components of which one count says how many stay."""

    labels: Ids
    channels: int


def counted(ready: Sequence[ScoredGroup], groups: Sequence[ChannelGroup]) -> list[Counted]:
    """What the cost model needs to know of the groups that an allocator sees."""
    labels: Mapping[str, Ids] = {group.name: group.labels for group in groups}
    return [
        Counted(np.concatenate([labels[part.name] for part in group.parts or (group,)]), group.channels) for group in ready
    ]
