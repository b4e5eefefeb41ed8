"""Comparable scores -> which channels stay. Changes nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

import numpy as np
from numpy.typing import NDArray

from pruning_core.allocators import ALLOCATORS, Budget, ScoredGroup, round_kept
from pruning_core.cost_model import CostModel
from pruning_core.coupling.analysis import Analysis
from pruning_core.coupling.groups import ChannelGroup, layer_of
from pruning_core.coupling.structure import structures
from pruning_core.errors import SpecError, nearest
from pruning_core.scoring import Scorer, scored_groups
from pruning_core.spec import PruningSpec


def filtered(groups: Sequence[ChannelGroup], spec: PruningSpec) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The groups that may be cut, and why each other one is left alone.

    Raises: SpecError when a glob or a layer name of the spec matches nothing.
    """
    names = {layer_of(m.tensor) for g in groups for m in g.members} | {g.name for g in groups}
    for option, patterns in (("exclude", spec.exclude), ("include", spec.include), ("ratios", tuple(spec.ratios))):
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise SpecError(f"{option}: {pattern!r} matches no layer", option, nearest(pattern, names))
    prunable: list[ChannelGroup] = []
    left: dict[str, str] = {}
    for group in groups:
        mine = (group.name, *group.layers)
        excluded = next((p for p in spec.exclude if any(fnmatchcase(n, p) for n in mine)), None)
        if group.reason:
            left[group.name] = f"locked: {group.reason}"
        elif excluded is not None:
            left[group.name] = f'excluded by "{excluded}"'
        elif spec.include and not any(fnmatchcase(n, p) for n in mine for p in spec.include):
            left[group.name] = "not among the included layers"
        else:
            prunable.append(group)
    return prunable, left


def select(
    groups: Sequence[ChannelGroup],
    scorer: Scorer,
    spec: PruningSpec,
    even: frozenset[int],
    analysis: Analysis,
    left: Mapping[str, str],
) -> dict[str, tuple[int, ...]]:
    """Kept channels by group name, sorted. Ties keep the lower channel. Groups of an `even` width keep equal widths.

    `left`: why the other groups are left alone, for messages.
    """
    if not groups:
        return {}
    blocks = {group.name: conv_blocks(group, analysis) for group in groups}
    ready = scored_groups(groups, scorer, spec, blocks, structures(groups, analysis.trace))
    costs = CostModel(analysis, groups, scorer.parameters, scorer.latencies) if spec.budget else None
    budget = Budget(
        spec.ratio,
        spec.ratios,
        spec.min_channels,
        spec.round_to,
        spec.round_mode,
        spec.slamp_p,
        spec.budget,
        costs,
        tuple(left.items()),
    )
    kept = ALLOCATORS[spec.allocator](ready, budget)
    counts = {group.name: round_kept(kept[group.name], group, budget) for group in ready}
    for width in sorted(even):
        counts |= even_counts([g for g in ready if width in g.widths], width, kept)
    found: dict[str, tuple[int, ...]] = {}
    for group in ready:
        count = counts[group.name]
        order = np.lexsort((np.arange(group.channels), -group.scores))
        keep = order[:count] if group.blocks is None else balanced(order, group.blocks, count, spec.group_policy)
        found[group.name] = tuple(sorted(keep.tolist()))
    return found


def conv_blocks(group: ChannelGroup, analysis: Analysis) -> NDArray[np.int64] | None:
    """[C]: the convolution group that each channel lies in, where a grouped convolution wants equal numbers of each."""
    rank = {int(label): k for k, label in enumerate(group.labels)}
    for rows in analysis.links.balances.values():
        labels = analysis.labels[rows]
        if np.isin(labels, group.labels).all() and len(np.unique(labels)) == labels.size == group.channels:
            blocks = np.empty(group.channels, dtype=np.int64)
            for number, row in enumerate(labels):
                blocks[[rank[int(label)] for label in row]] = number
            return blocks
    return None


def balanced(order: NDArray[np.int64], blocks: NDArray[np.int64], count: int, policy: str) -> NDArray[np.int64]:
    """Channels to keep, the same number in every block, each block's best ones. `order` [C]: best channels first.

    `none` shares the removal out evenly; `count` takes the smallest number that any block would lose on its own.
    """
    number = int(blocks.max()) + 1
    size = len(blocks) // number
    lost = np.bincount(blocks[order[count:]], minlength=number)
    gone = int(lost.min()) if policy == "count" else (len(blocks) - count) // number
    stay = max(size - gone, 1)
    return np.concatenate([order[blocks[order] == block][:stay] for block in range(number)])


def even_counts(groups: Sequence[ScoredGroup], width: int, kept: Mapping[str, float]) -> dict[str, int]:
    """Channels to keep so that axes of one width keep one width: the mean, rounded to what all groups can have."""
    step = math.lcm(*(width // g.channels for g in groups)) if groups else 1
    mean = sum(kept[g.name] * (width // g.channels) for g in groups) / max(len(groups), 1)
    common = min(max(round(mean / step), 1) * step, width)
    return {g.name: common * g.channels // width for g in groups}


def kept_by_index(
    groups: Sequence[ChannelGroup], index: Mapping[str, tuple[int, ...]], left: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """Kept channels of every group of which a layer is named; a removal reaches all layers coupled with it.

    Raises: SpecError for a layer that does not exist or is locked, a channel out of range or in a locked part, layers
    of one group that disagree, and a removal that would leave none.
    """
    removed: dict[str, tuple[str, set[int]]] = {}
    layers = sorted({layer for group in groups for layer in group.layers})
    for layer, channels in index.items():
        where = f"index[{layer!r}]"
        if layer not in layers:
            raise SpecError(f"there is no layer {layer!r}", where, nearest(layer, layers))
        mine = [(g, m) for g in groups for m in g.members if m.produces and layer_of(m.tensor) == layer]
        width = len(mine[0][1].channel_of)
        for channel in channels:
            if channel >= width:
                raise SpecError(f"channel {channel} is out of range", where, f"the layer has channels 0 to {width - 1}")
            group, member = next((g, m) for g, m in mine if m.channel_of[channel] >= 0)
            if group.name in left:
                raise SpecError(f"channel {channel} cannot go: {left[group.name]}", where, "leave it out")
            removed.setdefault(group.name, (layer, set()))[1].add(int(member.channel_of[channel]))
        for group, _ in mine:  # every named layer of a group must name the same channels
            if group.name in removed and removed[group.name][0] != layer:
                first = removed[group.name][0]
                wanted = {int(m.channel_of[c]) for g, m in mine if g is group for c in channels if m.channel_of[c] >= 0}
                if wanted != removed[group.name][1]:
                    fix = f"{first} and {layer} are coupled: name one of them, or the same channels for both"
                    raise SpecError("coupled layers name different channels", where, fix)
    kept: dict[str, tuple[int, ...]] = {}
    for group in groups:
        if group.name in removed:
            layer, gone = removed[group.name]
            stays = tuple(int(c) for c in np.setdiff1d(np.arange(group.channels), sorted(gone)))
            if not stays:
                raise SpecError("no channel would be left", f"index[{layer!r}]", "keep at least one channel")
            kept[group.name] = stays
    return kept
