"""Which layers contract a group's channels, and at which of their inputs: for the criterion that looks at consumers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pruning_core.coupling.groups import ChannelGroup, Member
from pruning_core.observe.calls import LayerCall


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """What some convolution groups of a layer read of a channel group: the same channels at the same inputs."""

    groups: Tensor  # [G] of the layer's
    channels: Tensor  # [C] of the channel group's
    inputs: Tensor  # [C, P] that belong to each

    def members(self, taps: int) -> Tensor:
        """[C, P taps]: the same where each kernel position is an input of its own."""
        return (self.inputs[:, :, None] * taps + torch.arange(taps)).flatten(1)


@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """One layer that contracts a group's channels. Linear layers and plain convolutions have one part."""

    call: LayerCall
    parts: tuple[Part, ...]


def consumers(group: ChannelGroup, calls: Sequence[LayerCall]) -> list[Consumer]:
    """The layers that contract the group's channels, of those that read as many inputs of each."""
    found: list[Consumer] = []
    for call in calls:
        for member in group.members:
            if (member.tensor, member.axis) == (call.weight, call.in_axis):
                parts = _parts(call, member, group.channels)
                if parts:
                    found.append(Consumer(call, parts))
    return found


def _parts(call: LayerCall, member: Member, channels: int) -> tuple[Part, ...]:
    """Empty where a channel has more inputs than others or none, and where it is all that a convolution group reads.

    Then the group's outputs go with it, as those of a depthwise transposed convolution do.
    """
    rows = call.groups if call.kind == "transposed" else member.blocks
    if call.groups % rows or member.blocks not in {1, rows}:
        return ()
    channel_of = member.channel_of.reshape(rows, -1).repeat(call.groups // rows, axis=0)  # [G, I]
    alone = (channel_of == channel_of[:, :1]).all(axis=1) & (channel_of[:, 0] >= 0)
    if call.groups > 1 and alone.any():
        return ()
    counts = [np.bincount(row[row >= 0], minlength=channels) for row in channel_of]
    read = np.max(counts, axis=0)
    if read.min() != read.max() or not read.max() or any(((n != 0) & (n != read)).any() for n in counts):
        return ()
    found: list[Part] = []
    different, which = np.unique(channel_of, axis=0, return_inverse=True)
    for k, row in enumerate(different):
        mine = np.unique(row[row >= 0])
        inside = np.flatnonzero(row >= 0)
        inputs = inside[np.argsort(row[inside], kind="stable")].reshape(len(mine), -1) if len(mine) else inside
        groups = np.flatnonzero(which.reshape(-1) == k)
        if len(mine):
            found.append(Part(*map(torch.from_numpy, (groups, mine, inputs))))
    return tuple(found)
