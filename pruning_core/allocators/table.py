"""What an allocator sees, and the rounding and floors that act on what it returns."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pruning_core.cost_model import CostModel
from pruning_core.coupling.structure import Structure
from pruning_core.normalizers import Scores
from pruning_core.registry import Registry


@dataclass(frozen=True, slots=True, eq=False)
class ScoredGroup:
    """Channels that one decision is about, with one comparable score each (high = keep)."""

    name: str
    layers: tuple[str, ...]
    scores: Scores  # [C]
    widths: frozenset[int]  # lengths of the axes that are this group's alone, in any layer
    blocks: NDArray[np.int64] | None  # [C]: the convolution group of each channel, where all groups must lose one number
    positions: int  # how many positions of the layer's axis one channel stands for (e.g. heads that share it)
    structure: Structure = ()  # what `isomorphic` compares groups by

    @property
    def channels(self) -> int:
        return len(self.scores)


@dataclass(frozen=True, slots=True)
class Budget:
    """How much is to go, and the limits of a layer."""

    ratio: float
    ratios: Mapping[str, float]
    min_channels: int
    round_to: int
    round_mode: str
    slamp_p: int
    targets: Mapping[str, float | str] = field(default_factory=dict)  # cost -> absolute, or "2.0x"
    costs: CostModel | None = None  # of the groups, in their order; for the allocator `budget`
    locks: tuple[tuple[str, str], ...] = ()  # (layer, why it is left alone), for messages


ALLOCATORS: Registry[Callable[[Sequence[ScoredGroup], Budget], dict[str, float]]] = Registry("allocator")


def round_kept(kept: float, group: ScoredGroup, budget: Budget) -> int:
    """Whole channels to keep: a multiple of `round_to` in positions, at least `min_channels`, at most all of them."""
    step = budget.round_to // math.gcd(budget.round_to, group.positions)
    steps = _ROUNDING[budget.round_mode](round(kept / step, 9))
    floor = max(1, math.ceil(budget.min_channels / group.positions))
    whole = group.channels if kept >= group.channels else steps * step
    return min(max(whole, floor), group.channels)


def _half_up(x: float) -> int:
    return math.floor(x + 0.5)


_ROUNDING: dict[str, Callable[[float], int]] = {"nearest": _half_up, "up": math.ceil, "down": math.floor}
