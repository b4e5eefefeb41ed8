"""SLAMP: LAMP lifted from weights to channels, with one global threshold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pruning_core.allocators.table import ALLOCATORS, Budget, ScoredGroup
from pruning_core.allocators.threshold import under_one_threshold
from pruning_core.normalizers import Scores


def slamp_scores(scores: Scores, p: int) -> Scores:
    """s_u^p / sum of s_v^p over all v with s_v >= s_u: [C] -> [C], in (0, 1]; the best channel of a layer has 1.

    Reference: Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021.
    """
    powered = np.asarray((scores - min(float(scores.min()), 0.0)) ** p, dtype=np.float64)
    order = np.argsort(powered, kind="stable")
    ascending = powered[order]
    tail = np.cumsum(ascending[::-1])[::-1]
    first_equal = np.searchsorted(ascending, ascending, side="left")
    tails = tail[first_equal]
    found = np.empty_like(powered)
    found[order] = np.divide(ascending, tails, out=np.zeros_like(ascending), where=tails > 0)
    if not powered.any():
        found[:] = 1 / len(found)
    return found


@ALLOCATORS.register
def slamp(groups: Sequence[ScoredGroup], budget: Budget) -> dict[str, float]:
    """The lowest SLAMP scores of the whole model go, until the ratio is the share of ALL prunable channels.

    Every group is counted once. Groups with a ratio of their own are left out of the common budget.
    """
    return under_one_threshold(groups, budget, lambda g: slamp_scores(g.scores, budget.slamp_p))
