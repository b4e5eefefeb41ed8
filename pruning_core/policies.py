"""Combine the scores of a group's members: policies across coupled layers, group policies inside one layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pruning_core.normalizers import NORMALIZERS, Scores

# members [M, C] of normalised scores -> [C]; `backward` adds the raw scores first, so it has a row of its own below
POLICIES: dict[str, Callable[[Scores], Scores]] = {
    "sum": lambda m: m.sum(axis=0),
    "average": lambda m: m.mean(axis=0),
    "max": lambda m: m.max(axis=0),
    "min": lambda m: m.min(axis=0),
    "backward": lambda m: m.sum(axis=0),
}
POLICIES["intersection"] = POLICIES["max"]  # goes only if every member would let it go
POLICIES["union"] = POLICIES["min"]  # goes if any member would

GROUP_POLICIES = ("sum", "average", "count", "none")


def combine(members: Sequence[Scores], normalizer: str, policy: str) -> Scores:
    """One score per channel of a group from its members' scores, each [C].

    All policies normalise first and combine then; `backward` adds the raw scores first and normalises after.
    """
    normalize = NORMALIZERS[normalizer]
    if policy == "backward":
        return normalize(np.stack(members).sum(axis=0))
    return POLICIES[policy](np.stack([normalize(scores) for scores in members]))


def fold_positions(scores: Scores, channel_of: NDArray[np.int64], channels: int, group_policy: str) -> Scores:
    """Scores of positions -> scores of channels, where several positions go together (heads, conv groups).

    Shapes: scores [P], channel_of [P] in [0, channels) or -1 -> [channels].
    """
    inside = channel_of >= 0
    total = np.bincount(channel_of[inside], weights=scores[inside], minlength=channels)
    if group_policy == "average":
        return np.asarray(total / np.maximum(np.bincount(channel_of[inside], minlength=channels), 1), dtype=np.float64)
    return np.asarray(total, dtype=np.float64)
