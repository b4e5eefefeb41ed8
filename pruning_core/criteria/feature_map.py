"""Criteria from the feature maps that a layer's channels make on calibration data. No labels."""

from __future__ import annotations

from torch import Tensor

from pruning_core.criteria.table import ChannelView, Features, criterion, missing, without_data


@criterion(needs={"features"})
def activation(view: ChannelView) -> Tensor:
    """Mean |a| over samples and positions: magnitude_C [C] -> [C], >= 0, float32. Unit: that of the feature map.

    Raises: SpecError without feature maps.
    Reference: Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017.
    """
    return _features("activation", view).magnitude_C.float().abs()


@criterion(needs={"features"})
def apoz(view: ChannelView) -> Tensor:
    """1 - average percentage of zeros, so that high = keep: zeros_C [C] -> [C], in [0, 1], float32.

    Behind an activation that makes no zeros all channels score 1. Raises: SpecError without feature maps.
    Reference: Hu et al., Network Trimming, 2016 (arXiv 1607.03250).
    """
    return (1 - _features("apoz", view).zeros_C.double()).clamp(0, 1).float()


@criterion(needs={"features", "nuclear"})
def nuclear_norm(view: ChannelView) -> Tensor:
    """Sum of singular values of each channel's feature map, mean over samples: nuclear_C [C] -> [C], >= 0, float32.

    Without two spatial axes it is that of the [samples, positions] slice. Unit: that of the feature map.
    Raises: SpecError without feature maps.
    Reference: Yeom et al., Toward Compact Deep Neural Networks via Energy-Aware Pruning, 2021 (arXiv 2103.10858).
    """
    nuclear_C = _features("nuclear_norm", view).nuclear_C
    if nuclear_C is None:
        raise missing("nuclear_norm", "singular values of feature maps", view, without_data("l2_norm"))
    return nuclear_C.float()


def _features(name: str, view: ChannelView) -> Features:
    if view.features is None:
        raise missing(name, "feature maps", view, without_data("l2_norm"))
    return view.features
