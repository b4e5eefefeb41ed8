"""Criteria from the gradient of the loss: how much it would change without a channel."""

from __future__ import annotations

from torch import Tensor

from pruning_core.criteria.table import ChannelView, criterion, missing

_LABELLED = "pass labelled calibration data (labelled=True, pairs of inputs and target), or use 'l2_norm'"


@criterion(needs={"gradients"}, whole=True)
def taylor(view: ChannelView) -> Tensor:
    """First-order estimate of the loss change, |sum_r w g|: weight_CR, grad_CR [C, R] -> [C], >= 0, float32.

    R runs over every slice of the group: filters, biases, scales and shifts, and the consumers' inputs.
    Unit: that of the loss. Raises: SpecError without gradients.
    Reference: Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019 (there squared).
    """
    if view.grad_CR is None:
        raise missing("taylor", "gradients", view, _LABELLED)
    return (view.weight_CR.float() * view.grad_CR.float()).sum(dim=1).abs()


@criterion(needs={"squares"})
def fisher(view: ChannelView) -> Tensor:
    """Sum over samples and over r of (w g)^2, g each sample's own gradient: weight_CR, square_CR [C, R] -> [C], >= 0.

    `square_CR` is a mean over `samples`, so the sum is samples * sum_r w^2 square. Float32; unit: the loss squared.
    Twice the second-order estimate of the loss change, with the diagonal Fisher information for the Hessian.
    Raises: SpecError without per-sample gradients.
    Reference: Theis et al., Faster Gaze Prediction with Dense Networks and Fisher Pruning, 2018 (arXiv 1801.05787).
    """
    return _fisher("fisher", view)


@criterion(needs={"squares"})
def hessian(view: ChannelView) -> Tensor:
    """The same as `fisher`: the empirical Fisher information stands for the diagonal of the Hessian.

    Raises: SpecError without per-sample gradients.
    Reference: LeCun et al., Optimal Brain Damage, NIPS 1989; Theis et al., 2018 (arXiv 1801.05787).
    """
    return _fisher("hessian", view)


def _fisher(name: str, view: ChannelView) -> Tensor:
    if view.square_CR is None:
        raise missing(name, "per-sample gradients", view, _LABELLED)
    return view.samples * (view.weight_CR.float().square() * view.square_CR.float()).sum(dim=1)
