"""Criteria from the normalisation behind a layer."""

from __future__ import annotations

from torch import Tensor

from pruning_core.criteria.table import ChannelView, criterion, missing


@criterion(needs={"gamma"})
def bn_scale(view: ChannelView) -> Tensor:
    """|gamma| of the BatchNorm behind the layer: gamma_C [C] -> [C], >= 0, float32.

    Raises: SpecError where there is none.
    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017.
    """
    if view.gamma_C is None:
        raise missing("bn_scale", "a BatchNorm behind the layer", view, "exclude this layer, or use 'l2_norm'")
    return view.gamma_C.float().abs()
