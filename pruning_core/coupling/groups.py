"""Components -> channel groups: components that touch the same axes of the same tensors are the channels of one group."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from pruning_core.coupling.analysis import Analysis
from pruning_core.coupling.units import Ids, is_fixed
from pruning_core.trace import Value

_CONTRACTIONS = ("linear", "conv", "addmm", "mm", "bmm", "matmul", "mv", "dot", "vdot", "bilinear", "einsum")


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """An axis of a tensor on which the group has positions. channel_of [blocks n]: channel of each, or -1.

    With blocks, each block of the tensor's rows has positions of its own on the axis, as in a grouped convolution.
    """

    tensor: str
    axis: int
    produces: bool  # the axis is the output side of a layer
    channel_of: Ids
    consumes: bool = False  # the tensor enters a contraction, and the axis is not its output side
    blocks: int = 1

    @property
    def width(self) -> int:
        """n: the length of the axis."""
        return len(self.channel_of) // self.blocks


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """Channels that are cut together across layers."""

    name: str
    labels: Ids  # [C]: the component of each channel
    members: tuple[Member, ...]
    reason: str  # why it is left alone; empty when it is prunable
    approximate: str  # which statistic runs over it; empty when a cut is exact
    blocks: Ids | None = None  # [C]: the part of each channel, where parts of a split axis have channels of their own

    @property
    def channels(self) -> int:
        return len(self.labels)

    @property
    def root(self) -> Member:
        return next((m for m in self.members if m.produces), self.members[0])

    @property
    def layers(self) -> tuple[str, ...]:
        """Layers whose output width the group is, in order."""
        return tuple(dict.fromkeys(layer_of(m.tensor) for m in self.members if m.produces))

    @property
    def widths(self) -> frozenset[int]:
        """Widths on which all positions are this group's: of an axis, over the blocks of its rows."""
        return frozenset(len(m.channel_of) for m in self.members if (m.channel_of >= 0).all())

    @property
    def positions(self) -> int:
        """How many positions of the root axis one channel stands for."""
        return max(int((self.root.channel_of >= 0).sum()) // self.channels, 1)


def blocks_of(group: ChannelGroup, analysis: Analysis) -> Ids | None:
    """[C]: the part or convolution group that each channel lies in, where equal numbers of each must go."""
    if group.blocks is not None:
        return group.blocks
    labels = group.labels
    rank = {int(label): k for k, label in enumerate(labels)}
    for rows in analysis.links.balances.values():
        found = analysis.labels[rows]
        if np.isin(found, labels).all() and len(np.unique(found)) == found.size == len(labels):
            blocks = np.empty(len(labels), dtype=np.int64)
            for number, row in enumerate(found):
                blocks[[rank[int(label)] for label in row]] = number
            return blocks
    return None


def layer_of(tensor: str) -> str:
    """The layer's name from its tensor's: `layer1.conv.weight` -> `layer1.conv`; parametrized weights too."""
    layer = tensor.split(".parametrizations.")[0] if ".parametrizations." in tensor else tensor.rpartition(".")[0]
    return layer or tensor


def emitted_axes(analysis: Analysis) -> dict[tuple[str, int], int]:
    """(tensor, axis) pairs that are the output side of a contraction or a look-up -> in how many blocks of the rows."""
    first: dict[int, tuple[str, int]] = {}
    for name, value in analysis.trace.tensors.items():
        for axis, ids in enumerate(analysis.axes[value.index]):
            if not is_fixed(ids):
                first[int(ids[0])] = (name, axis)
    starts = np.array(sorted(first), dtype=np.int64)
    found: dict[tuple[str, int], int] = {}
    last = max(
        (
            int(analysis.axes[v.index][k][-1])
            for n, v in analysis.trace.tensors.items()
            for k in range(len(v.shape))
            if not is_fixed(analysis.axes[v.index][k])
        ),
        default=0,
    )
    by_blocks: dict[int, list[Ids]] = {}
    for ids, blocks in analysis.links.emits:
        by_blocks.setdefault(blocks, []).append(ids[(ids != 0) & (ids <= last)])
    for blocks, emitted in by_blocks.items():
        for k in np.unique(np.searchsorted(starts, np.concatenate(emitted), side="right") - 1):
            key = first[int(starts[k])]
            found[key] = math.gcd(found.get(key, 0), blocks)  # calls that want different ones share these
    return found


def channel_groups(analysis: Analysis) -> list[ChannelGroup]:
    """All groups of the module's tensors, prunable or not, in the order of the tensors' first use."""
    labels = analysis.labels
    produced = emitted_axes(analysis)
    contracted = contracted_tensors(analysis)
    is_locked = np.zeros(int(labels.max()) + 1, dtype=bool)
    is_locked[list(analysis.locked)] = True
    axes = [
        (name, axis, ids)
        for name, value in in_order_of_use(analysis)
        for axis, ids in enumerate(analysis.axes[value.index])
        if not is_fixed(ids) and ((name, axis) in produced or not is_locked[labels[ids]].all())
    ]
    if not axes:
        return []
    rng = np.random.default_rng(0)
    signature = np.zeros(int(labels.max()) + 1, dtype=np.uint64)
    for _, _, ids in axes:
        signature[labels[ids]] += rng.integers(1, 2**63, dtype=np.uint64)  # numpy adds once per place
    read = np.zeros(len(signature), dtype=bool)
    for ids in analysis.links.reads:
        read[labels[ids]] = True
    approximate: dict[int, str] = {}
    for ids, why in analysis.links.approximations:
        for label in np.unique(labels[ids[ids != 0]]):
            approximate.setdefault(int(label), why)
    by_signature: dict[int, list[tuple[str, int, Ids]]] = {}
    order: dict[int, Ids] = {}
    ordered_axes = sorted(axes, key=lambda a: (a[0], a[1]) not in produced)  # outputs of layers come first
    for name, axis, ids in ordered_axes:
        mine = labels[ids]
        codes = signature[mine]
        for code in codes[:1] if (codes == codes[0]).all() else np.unique(codes):
            by_signature.setdefault(int(code), []).append((name, axis, mine))
            if int(code) not in order:
                order[int(code)] = _distinct(mine[codes == code])
    rank = np.full(len(signature), -1, dtype=np.int64)
    groups: list[ChannelGroup] = []
    names: set[str] = set()
    for code, members in by_signature.items():
        for part, reason in _by_reason(order[code], analysis.locked, is_locked, read):
            rank[part] = np.arange(len(part))
            found = tuple(
                Member(
                    name,
                    axis,
                    blocks > 0,
                    np.tile(rank[ids], max(blocks, 1)),
                    not blocks and name in contracted,
                    max(blocks, 1),
                )
                for name, axis, ids in members
                for blocks in (produced.get((name, axis), 0),)
            )
            rank[part] = -1
            why = next((approximate[x] for x in part.tolist() if x in approximate), "") if approximate else ""
            group = ChannelGroup(name_of(found, names), part, found, reason, why)
            groups.append(group)
    return groups


def contracted_tensors(analysis: Analysis) -> set[str]:
    """Tensors that are operands of a linear layer, a convolution or a matrix product."""
    by_index = {value.index: name for name, value in analysis.trace.tensors.items()}
    ops = (op for op in analysis.trace.ops if op.name.removeprefix("aten.").startswith(_CONTRACTIONS))
    return {by_index[value.index] for op in ops for value in op.inputs() if value.index in by_index}


def _distinct(labels: Ids) -> Ids:
    """Each label once, in the order in which they come."""
    first = np.unique(labels, return_index=True)[1]
    return labels if len(first) == len(labels) else labels[np.sort(first)]


def _by_reason(channels: Ids, locked: dict[int, str], is_locked: Ids, read: Ids) -> Iterable[tuple[Ids, str]]:
    """Parts of a signature with one answer each: prunable, or one reason why not."""
    if read[channels].all() and not is_locked[channels].any():
        yield channels, ""
        return
    reasons = [
        locked.get(int(label), "" if read[label] else "nothing reads these channels in a way that can be cut")
        for label in channels
    ]
    for reason in dict.fromkeys(reasons):
        yield channels[[r == reason for r in reasons]], reason


def name_of(members: Sequence[Member], taken: set[str]) -> str:
    """The layer whose output it is; with the positions, where it is only a part of that layer's output."""
    root = next((m for m in members if m.produces), members[0])
    name = layer_of(root.tensor) if root.produces else root.tensor
    inside = np.flatnonzero(root.channel_of >= 0)
    if len(inside) < len(root.channel_of):
        name = f"{name}[{inside[0]}:{inside[-1] + 1}]"
    base, k = name, 2
    while name in taken:
        name, k = f"{base}#{k}", k + 1
    taken.add(name)
    return name


def in_order_of_use(analysis: Analysis) -> list[tuple[str, Value]]:
    trace = analysis.trace
    by_index = {value.index: name for name, value in trace.tensors.items()}
    names: dict[str, None] = {}
    for op in trace.ops:
        for value in op.inputs():
            if value.index in by_index:
                names.setdefault(by_index[value.index])
    for name in trace.tensors:
        names.setdefault(name)
    return [(name, trace.tensors[name]) for name in names]
