"""Criteria from where a filter lies among its layer's filters."""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.criteria.table import ChannelView, criterion


@criterion()
def geometric_median(view: ChannelView) -> Tensor:
    """Summed distance to the layer's other filters: weight_CR [C, R] -> [C], >= 0; low = others can stand in for it.

    Reference: He et al., Filter Pruning via Geometric Median, CVPR 2019 (FPGM).
    """
    weight = view.weight_CR.float()
    return torch.cdist(weight, weight, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)
