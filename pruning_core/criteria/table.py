"""The one signature of a criterion, and the table of them. Shape legend: C channels, R everything else, flattened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from pruning_core.registry import Registry


@dataclass(frozen=True, slots=True, eq=False)
class ChannelView:
    """One weight as its group sees it: pruned axis first, so that no criterion asks what layer it came from."""

    name: str
    weight_CR: Tensor
    damage_C: Tensor | None = None  # of the channel's removal, where that has been observed


CRITERIA: Registry[Callable[[ChannelView], Tensor]] = Registry("criterion")
