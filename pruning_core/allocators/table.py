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
    blocks: NDArray[np.int64] | None  # [C]: the convolution group of each channel, where all groups must lose one number
    positions: int  # how many positions of the layers' axes one channel stands for (e.g. heads that share it)
    structure: Structure = ()  # what `isomorphic` compares groups by
    carriers: tuple[str, ...] = ()  # layers without filters that hand its channels on (norms): names of it too
    parts: tuple[ScoredGroup, ...] = ()  # the groups that keep equal shares, where this one stands for several
    originals: float = 1.0  # channels of the unpruned model per channel, after rounds of iterative pruning
    read_strides: frozenset[int] = frozenset()  # how many inputs a channel is to the layers that read it

    @property
    def channels(self) -> int:
        return len(self.scores)

    @property
    def full(self) -> float:
        """Channels of the unpruned model: what a ratio is a share of."""
        return self.channels * self.originals

    @property
    def lot(self) -> int:
        """Channels that go at once: one of each block."""
        return 1 if self.blocks is None else int(self.blocks.max()) + 1

    @property
    def strides(self) -> tuple[int, ...]:
        """How many positions of one layer's axis a channel stands for, in each part."""
        return tuple(p.positions * p.channels // self.channels for p in self.parts) or (self.positions,)

    @property
    def ascending(self) -> Scores:
        """[C] scores in the order in which the channels go: the lowest first, lot after lot."""
        if self.blocks is None:
            return np.sort(self.scores)
        by_block = [np.sort(self.scores[self.blocks == block]) for block in range(self.lot)]
        return np.stack(by_block, axis=1).ravel()


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
    """Whole channels to keep: all of them, or whole lots, a multiple of `round_to` and at least `min_channels` positions.

    Every part of the group has its own positions, and all that is asked for holds in each. The multiple holds of the
    readers' inputs too: two halves of 12 rows are a multiple of 8 as rows, and the product of both is none as an input.
    """
    strides = {*group.strides, *group.read_strides}
    step = math.lcm(group.lot, *(budget.round_to // math.gcd(budget.round_to, stride) for stride in strides))
    floor = math.ceil(budget.min_channels / min(group.strides) / step)
    steps = max(_ROUNDING[budget.round_mode](round(kept / step, 9)), floor, 1)
    return group.channels if kept >= group.channels else min(steps * step, group.channels)


def _half_up(x: float) -> int:
    return math.floor(x + 0.5)


_ROUNDING: dict[str, Callable[[float], int]] = {"nearest": _half_up, "up": math.ceil, "down": math.floor}
