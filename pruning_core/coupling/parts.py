"""Channels that a split axis ties across its parts (heads, convolution groups), told apart part by part.

Where an axis is split, one id per index of the new axis stands for that position in all parts. Whether each part may
have positions of its own shows in a second walk in which the other factor of the split is kept: an entry's part there
and its position here name it alone. Parts that something sums over or serves alike (a norm for all heads) stay tied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pruning_core.coupling.analysis import OUTPUT, Analysis, ChoiceKey, analyse
from pruning_core.coupling.groups import ChannelGroup, Member
from pruning_core.coupling.units import Ids, is_fixed
from pruning_core.reorder import Reorder
from pruning_core.tree import is_prunable_dtype

NESTED = 3  # splits of one axis one after the other (projections, then heads): the first ones may have to stay as they are


def told_apart(groups: Sequence[ChannelGroup], analysis: Analysis) -> dict[str, ChannelGroup]:
    """Group -> the same with a channel for each position of each part, of those groups whose parts are independent.

    Channel `part * C + c` is channel c of the tied group [C] in that part; `blocks` says the part. Empty where the group
    policy wants the same positions everywhere.
    """
    tied = [g for g in groups if analysis.decisions.tells_apart and not g.reason and g.positions > 1]
    flips = _flips(analysis) if tied else {}
    splits = {group.name: sorted(key for key in flips if _touches(analysis, key, group)) for group in tied}
    found: dict[str, ChannelGroup] = {}
    for skipped in range(NESTED):
        rest = [group for group in tied if group.name not in found and skipped < len(splits[group.name])]
        if not rest:
            break
        as_before = {key for group in rest for key in splits[group.name][:skipped]}
        turned = {key: factor for key, factor in flips.items() if key not in as_before}
        other = analyse(analysis.trace, analysis.decisions.with_choices(turned))
        apart = {group.name: _told_apart(group, analysis, other) for group in rest}
        found |= {name: group for name, group in apart.items() if group is not None}
    return found


def _flips(analysis: Analysis) -> dict[ChoiceKey, int]:
    """Of every split axis the widest factor that was not kept."""
    return {
        key: rest[0]
        for key, choice in analysis.choices.items()
        if choice.kind != "merge" and (rest := [option for option in choice.options if option != choice.taken])
    }


def _touches(analysis: Analysis, key: ChoiceKey, group: ChannelGroup) -> bool:
    """Whether the axis that is split has channels of the group, or the weight of the call that splits it."""
    read = [ids for value in analysis.trace.ops[key[0]].inputs() for ids in analysis.axes[value.index]]
    ids = np.concatenate([analysis.choice_ids[key], *read])
    return bool(np.isin(analysis.labels[ids[ids != 0]], group.labels).any())


def _told_apart(group: ChannelGroup, analysis: Analysis, other: Analysis) -> ChannelGroup | None:
    """The group with its parts apart; None where something ties them, or the other walk does not tell them."""

    on_root = _parts_on(group.root, other)[group.root.channel_of >= 0]
    parts = on_root[np.sort(np.unique(on_root, return_index=True)[1])]
    if len(parts) < 2 or any(other.locked.get(int(part), OUTPUT) != OUTPUT for part in parts):
        return None
    number = np.full(int(other.labels.max()) + 1, -1, dtype=np.int64)
    number[parts] = np.arange(len(parts))
    if _mixed(group, number >= 0, analysis, other):
        return None
    total = len(parts) * group.channels
    members: list[Member] = []
    for member in group.members:
        if not is_prunable_dtype(analysis.trace.tensors[member.tensor].dtype):
            return None
        part = number[_parts_on(member, other)]
        if (part[member.channel_of >= 0] < 0).any():  # not told here: by the rows of a grouped convolution's weight, maybe
            by_row = number[_rows_on(member, other)]
            if member.blocks > 1 or member.axis != 1 or (member.channel_of < 0).any() or (by_row < 0).any():
                return None
            blocks = _blocks(by_row)
            member = replace(member, channel_of=np.tile(member.channel_of, blocks), blocks=blocks)
            part = number[_parts_on(member, other)]
        channel_of = np.where(member.channel_of >= 0, part * group.channels + member.channel_of, -1)
        counts = np.bincount(channel_of[channel_of >= 0], minlength=total)
        if counts.min() != counts.max():
            return None
        members.append(replace(member, channel_of=channel_of))
    return replace(
        group,
        labels=np.tile(group.labels, len(parts)),
        members=tuple(members),
        blocks=np.repeat(np.arange(len(parts)), group.channels),
    )


def _parts_on(member: Member, other: Analysis) -> Ids:
    """[blocks n]: the part of each position; with blocks that of the block's rows, 0 where these are of several."""
    if member.blocks == 1:
        return other.labels[other.tensor_axes(member.tensor)[member.axis]]
    rows = _rows_on(member, other).reshape(member.blocks, -1)
    one = np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], 0)
    return np.repeat(one, member.width)


def _rows_on(member: Member, other: Analysis) -> Ids:
    return other.labels[other.tensor_axes(member.tensor)[0]]


def _mixed(group: ChannelGroup, is_part: NDArray[np.bool_], analysis: Analysis, other: Analysis) -> bool:
    """Whether a call sums over the parts of each position: an attention does over the positions of each head."""
    mine = np.zeros(int(analysis.labels.max()) + 1, dtype=bool)
    mine[group.labels] = True

    def holds(axes: Sequence[Ids]) -> bool:
        return any(not is_fixed(ids) and mine[analysis.labels[ids]].any() for ids in axes)

    return any(
        any(not is_fixed(ids) and is_part[other.labels[ids]].any() for ids in other.reads.get(op.index, ()))
        and not holds(analysis.reads.get(op.index, ()))
        and any(holds(analysis.axes[value.index]) for value in op.inputs())
        for op in analysis.trace.ops
    )


def _blocks(by_row: Ids) -> int:
    """Into how many equal blocks the rows fall, each of one part."""
    edges = np.flatnonzero(np.diff(by_row)) + 1
    return len(by_row) // int(np.gcd.reduce([*edges, len(by_row)]))


def reorders(apart: ChannelGroup, kept: Sequence[int]) -> list[Reorder]:
    """What brings the kept channels of every part to its first positions, so that the same positions go everywhere.

    `kept`: of the group told apart, as many of each part. Positions that stay and those that go keep their order.
    """
    assert apart.blocks is not None
    parts = int(apart.blocks.max()) + 1
    stays = np.zeros(len(apart.labels), dtype=bool)
    stays[list(kept)] = True
    new = np.argsort(~stays.reshape(parts, -1), axis=1, kind="stable")  # [parts, C] channel that comes to each place
    found: list[Reorder] = []
    for member in apart.members:
        mine = np.flatnonzero(member.channel_of >= 0)
        places = mine[np.argsort(member.channel_of[mine], kind="stable")].reshape(parts, new.shape[1], -1)
        order = np.arange(len(member.channel_of))
        for part in range(parts):
            order[places[part]] = places[part][new[part]]
        if (order != np.arange(len(order))).any():
            found.append(
                Reorder(
                    tensor=member.tensor,
                    axis=member.axis,
                    blocks=member.blocks,
                    order=tuple(order.tolist()),
                )
            )
    return found


def first_channels(apart: ChannelGroup, kept: Sequence[int]) -> tuple[int, ...]:
    """The channels that stay of the tied group once the parts are in order: the first ones."""
    assert apart.blocks is not None
    return tuple(range(len(kept) // (int(apart.blocks.max()) + 1)))
