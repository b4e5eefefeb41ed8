"""Why a group that could be cut keeps all of its channels."""

from __future__ import annotations

from dataclasses import replace

from pruning_core.allocators import Budget, ScoredGroup, round_kept
from pruning_core.allocators.local import named_ratio

KEPT_WHOLE = "the ratio, the rounding or the floor keeps them all"  # where it is not known which


def why_whole(group: ScoredGroup, wanted: float, allocator: str, limits: Budget) -> str:
    """What keeps the group's channels, of which the allocator wants to keep so many.

    A budget heeds floor and rounding by itself: they are to blame where they leave it no step to take.
    """
    named = named_ratio(group, limits, -1.0) >= 0
    least = 1.0 if allocator == "budget" and not named else wanted
    if least < group.channels:
        held = _floor_or_rounding(group, least, limits)
        return held or "the budget is met without it"
    if allocator == "per_layer" and not named:
        return "not named in ratios"
    if named or allocator == "uniform" or not limits.ratio:
        return "ratio 0"
    return "its channels rank above the threshold"


def _floor_or_rounding(group: ScoredGroup, kept: float, limits: Budget) -> str:
    """Which of them makes all channels of what is to be kept; nothing where neither does."""
    if round_kept(kept, group, limits) < group.channels:
        return ""
    if round_kept(kept, group, replace(limits, min_channels=1)) < group.channels:
        return f"floor: min_channels {limits.min_channels}"
    if round_kept(kept, group, replace(limits, min_channels=1, round_to=1)) < group.channels:
        return f"rounding: round_to {limits.round_to}, {limits.round_mode}"
    at_once = group.lot * max(group.strides)
    return f"rounding: {at_once} channels go at once" if at_once > 1 else "rounding: to whole channels"
