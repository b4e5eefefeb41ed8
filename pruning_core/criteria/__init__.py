"""Criteria: pure functions from one layer's weights to one score per channel; high = keep."""

from pruning_core.criteria import geometry, magnitude, reconstruction  # noqa: F401  (importing a family registers it)
from pruning_core.criteria.table import CRITERIA, ChannelView

__all__ = ["CRITERIA", "ChannelView"]
