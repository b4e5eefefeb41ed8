"""Allocators that look at one group at a time."""

from __future__ import annotations

from collections.abc import Sequence

from pruning_core.allocators.table import ALLOCATORS, Budget, ScoredGroup
from pruning_core.patterns import ratio_of


def named_ratio(group: ScoredGroup, budget: Budget, default: float) -> float:
    """The ratio given for the group's layers by name or glob, else the default. Raises: SpecError where they disagree."""
    return ratio_of(group.name, group.layers, budget.ratios, default, group.carriers)


@ALLOCATORS.register
def uniform(groups: Sequence[ScoredGroup], budget: Budget) -> dict[str, float]:
    """The same ratio in every group, but for those that are named."""
    return {g.name: g.full * (1 - named_ratio(g, budget, budget.ratio)) for g in groups}


@ALLOCATORS.register
def per_layer(groups: Sequence[ScoredGroup], budget: Budget) -> dict[str, float]:
    """Only the named groups, each with its own ratio; unnamed ones keep everything."""
    return {g.name: g.full * (1 - named_ratio(g, budget, 0.0)) for g in groups}
