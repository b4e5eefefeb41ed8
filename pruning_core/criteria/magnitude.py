"""Criteria from the size of the weights."""

from __future__ import annotations

import torch
from torch import Tensor

from pruning_core.criteria.table import ChannelView, criterion


@criterion()
def l2_norm(view: ChannelView) -> Tensor:
    """Euclidean norm of each channel's filter: weight_CR [C, R] -> [C], >= 0, float32.

    Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (there with the L1 norm).
    """
    norms: Tensor = torch.linalg.vector_norm(view.weight_CR.float(), dim=1)
    return norms


@criterion()
def l1_norm(view: ChannelView) -> Tensor:
    """Sum of absolute weights of each channel's filter: weight_CR [C, R] -> [C], >= 0, float32.

    Reference: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
    """
    return view.weight_CR.float().abs().sum(dim=1)
