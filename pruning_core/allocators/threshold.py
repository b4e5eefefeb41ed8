"""Allocators with one threshold over the scores of many groups."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pruning_core.allocators.local import named_ratio
from pruning_core.allocators.table import ALLOCATORS, Budget, ScoredGroup
from pruning_core.coupling.structure import Structure
from pruning_core.normalizers import Scores


def under_one_threshold(
    groups: Sequence[ScoredGroup], budget: Budget, scores_of: Callable[[ScoredGroup], Scores]
) -> dict[str, float]:
    """The lowest scores of all groups go, until the ratio is the share of ALL their channels, in positions.

    Every group is counted once, and keeps at least its best channel. Groups with a ratio of their own are left out of
    the common budget. Ties go in the order of the groups.
    """
    kept = {g.name: g.full * (1 - named_ratio(g, budget, 0.0)) for g in groups}
    common = [g for g in groups if named_ratio(g, budget, -1.0) < 0]
    if not common:
        return kept
    scores = np.concatenate([scores_of(g) for g in common])
    weight = np.concatenate([np.full(g.channels, g.positions) for g in common])
    owner = np.concatenate([np.full(g.channels, i) for i, g in enumerate(common)])
    order = np.argsort(scores, kind="stable")
    best = {int(np.flatnonzero(owner == i)[np.argmax(scores[owner == i])]) for i in range(len(common))}
    order = order[[int(u) not in best for u in order]]
    before = sum(g.full * g.positions for g in common)
    going = budget.ratio * before - (before - weight.sum())  # less what went in earlier rounds
    gone = order[np.cumsum(weight[order]) <= going + 1e-9]
    counts = np.bincount(owner[gone], minlength=len(common))
    return kept | {g.name: float(g.channels - counts[i]) for i, g in enumerate(common)}


@ALLOCATORS.register
def global_(groups: Sequence[ScoredGroup], budget: Budget) -> dict[str, float]:
    """One threshold over all normalised scores; the ratio is the share of all prunable channels of the model."""
    return under_one_threshold(groups, budget, lambda g: g.scores)


@ALLOCATORS.register
def isomorphic(groups: Sequence[ScoredGroup], budget: Budget) -> dict[str, float]:
    """As `global`, but with one threshold for each kind of structure: scores of unlike groups are not compared.

    Each kind loses the ratio of its channels. Reference: Fang et al., Isomorphic Pruning for Vision Models, ECCV 2024.
    """
    kinds: dict[Structure, list[ScoredGroup]] = {}
    for group in groups:
        kinds.setdefault(group.structure, []).append(group)
    kept: dict[str, float] = {}
    for alike in kinds.values():
        kept |= under_one_threshold(alike, budget, lambda g: g.scores)
    return kept
