"""Allocators: how one ratio is spread over the groups. Scored groups -> how many channels each keeps."""

from pruning_core.allocators import budget, local, slamp, threshold  # noqa: F401  (importing a family registers it)
from pruning_core.allocators.table import ALLOCATORS, Budget, ScoredGroup, round_kept

__all__ = ["ALLOCATORS", "Budget", "ScoredGroup", "round_kept"]
