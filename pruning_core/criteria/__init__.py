"""Criteria: pure functions from one layer's weights and observations to one score per channel; high = keep."""

from pruning_core.criteria import (  # noqa: F401  (registers each)
    control,
    feature_map,
    geometry,
    gradient,
    magnitude,
    norm,
    reconstruction,
)
from pruning_core.criteria.table import CRITERIA, NEEDS, WHOLE, WITH_DATA, WITH_LABELS, ChannelView, Features, criterion

__all__ = ["CRITERIA", "NEEDS", "WHOLE", "WITH_DATA", "WITH_LABELS", "ChannelView", "Features", "criterion"]
