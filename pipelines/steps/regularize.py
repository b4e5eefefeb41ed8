"""Penalties that prepare a cut: trained with one, a network keeps what it knows in fewer channels.

With `sgd` the penalty acts as in the papers; `adamw` scales its gradient together with the loss's own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import pruning_core as pc
from pipelines.errors import ConfigError

Penalty = Callable[[nn.Module], Tensor]
BatchNorm = nn.modules.batchnorm._BatchNorm
TINY = 1e-24  # squared norm below which a channel counts as gone: the root has no gradient at 0


def no_penalty(_module: nn.Module) -> Tensor:
    return torch.zeros(())


def bn_scale_l1(module: nn.Module) -> Tensor:
    """Sum of |gamma| over all BatchNorms; its gradient is the sign, 0 at 0.

    Reference: Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017.
    """
    scales = [scale for scale in _bn_scales(module) if scale.requires_grad]
    return torch.stack([scale.abs().sum() for scale in scales]).sum() if scales else torch.zeros(())


def _bn_scales(module: nn.Module) -> list[nn.Parameter]:
    return [m.weight for m in module.modules() if isinstance(m, BatchNorm) and isinstance(m.weight, nn.Parameter)]


def channel_norms(module: nn.Module, coupling: pc.Coupling) -> Tensor:
    """[C]: the Euclidean norm of all slices of each channel. An entry that lies in two slices counts in each."""
    parameters = dict(module.named_parameters())
    squares = [_squares(parameters[s.parameter], s, coupling.channels) for s in coupling.slices]
    return torch.stack(squares).sum(dim=0).clamp_min(TINY).sqrt()


def _squares(parameter: Tensor, part: pc.ChannelSlice, channels: int) -> Tensor:
    """[C]: sum of squares of one parameter's slices."""
    rows = parameter.movedim(part.axis, 0).flatten(1) if parameter.ndim > 1 else parameter[:, None]
    per_position = (rows.abs() if rows.is_complex() else rows).square().sum(dim=1)
    if part.channel_of == tuple(range(channels)):
        return per_position
    inside = [k for k, channel in enumerate(part.channel_of) if channel >= 0]
    channel_of = torch.tensor([part.channel_of[k] for k in inside], device=parameter.device)
    return per_position.new_zeros(channels).index_add(0, channel_of, per_position[inside])


def group_lasso(couplings: Sequence[pc.Coupling]) -> Penalty:
    """Sum over the channels of all couplings of the norm of all slices of a channel."""

    def penalty(module: nn.Module) -> Tensor:
        return torch.stack([channel_norms(module, coupling).sum() for coupling in couplings]).sum()

    return penalty


def penalty_of(kind: str, module: nn.Module, example: Tensor) -> Penalty:
    """The penalty of that name, for this model. Raises ConfigError where the model has nothing that it could act on."""
    where = f"finetune.regularization.kind = {kind}"
    if kind == "bn_l1":
        if not _bn_scales(module):
            raise ConfigError("the model has no BatchNorm with scales", where, "use group_lasso, or none")
        return bn_scale_l1
    if kind == "group_lasso":
        found = pc.couplings(module, example)
        if not found:
            raise ConfigError("no channel of the model can be pruned", where, "`secateur inspect` says why")
        return group_lasso(found)
    return no_penalty


class Regularizer(pl.Callback):
    """Adds the gradient of `weight` x penalty to that of the loss, in every step of `finetune`."""

    def __init__(self, penalty: Penalty, weight: float) -> None:
        self.penalty, self.weight = penalty, weight

    def on_after_backward(self, _trainer: pl.Trainer, pl_module: Any) -> None:
        with torch.enable_grad():
            value = self.weight * self.penalty(pl_module.module)
        if value.requires_grad:
            value.backward()  # type: ignore[no-untyped-call]
