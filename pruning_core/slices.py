"""All that the channels of a group own, as one view: one row of entries per channel, over every slice of the group."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from pruning_core.coupling.groups import Member
from pruning_core.coupling.units import Ids
from pruning_core.criteria.table import ChannelView


def rows_of(tensor: Tensor, axis: int, blocks: int = 1) -> Tensor:
    """[C, R] with an axis first. Complex entries are pairs; a gradient comes as pairs already.

    `blocks`: each block of the tensor's rows has channels of its own on the axis: [blocks C, R / blocks].
    """
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    if blocks > 1:
        tensor, axis = tensor.reshape(blocks, -1, *tensor.shape[1:]).movedim(axis + 1, 1).flatten(0, 1), 0
    return tensor.movedim(axis, 0).flatten(1) if tensor.ndim > 1 else tensor[:, None]


def view_of_slices(
    members: Sequence[Member], channels: int, tensors: Mapping[str, Tensor], gradients: Mapping[str, Tensor]
) -> ChannelView:
    """Weights and gradients of every entry that goes with a channel: weight_CR, grad_CR [channels, R], float32.

    The slices of all members stand side by side, filled up with zeros where channels have fewer positions than others.
    An entry that two axes of one tensor give to the same channel counts once.
    """
    weights: list[Tensor] = []
    grads: list[Tensor] = []
    for k, member in enumerate(members):
        gradient = gradients[member.tensor]
        for other in members[:k]:
            if other.tensor == member.tensor:
                gradient = _without_shared(gradient, member, other)
        for found, tensor in ((weights, tensors[member.tensor].detach()), (grads, gradient)):
            found.append(_by_channel(rows_of(tensor, member.axis, member.blocks).float(), member.channel_of, channels))
    return ChannelView(members[0].tensor, torch.cat(weights, dim=1), grad_CR=torch.cat(grads, dim=1))


def _without_shared(gradient: Tensor, member: Member, other: Member) -> Tensor:
    """The gradient with zeros where both axes of a tensor give an entry to the same channel."""
    low, high = sorted((member, other), key=lambda m: m.axis)
    rows, columns = (torch.from_numpy(m.channel_of).to(gradient.device) for m in (low, high))
    same = rows.reshape(high.blocks, -1, 1) == columns.reshape(high.blocks, 1, -1)
    same &= rows.reshape(high.blocks, -1, 1) >= 0
    shape = [n if axis in (low.axis, high.axis) else 1 for axis, n in enumerate(gradient.shape)]
    return gradient.masked_fill(same.reshape(shape), 0)


def _by_channel(rows_PR: Tensor, channel_of: Ids, channels: int) -> Tensor:
    """[P, R] rows of positions -> [channels, K R]: the rows of a channel's positions, K of them at most, in one row."""
    if np.array_equal(channel_of, np.arange(channels)):
        return rows_PR
    counts = np.bincount(channel_of[channel_of >= 0], minlength=channels)
    order = np.argsort(channel_of, kind="stable")[int((channel_of < 0).sum()) :]
    nth = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    found = rows_PR.new_zeros((channels, int(counts.max()), rows_PR.shape[1]))
    at = [torch.from_numpy(index).to(rows_PR.device) for index in (channel_of[order], nth, order)]
    found[at[0], at[1]] = rows_PR[at[2]]
    return found.flatten(1)
