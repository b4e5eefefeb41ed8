"""Comparable scores -> which channels stay. Changes nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from pruning_core.allocators import ALLOCATORS, Budget, ScoredGroup, round_kept
from pruning_core.allocators.local import named_ratio
from pruning_core.cost_model import CostModel
from pruning_core.coupling.analysis import Analysis
from pruning_core.coupling.groups import ChannelGroup, blocks_of, channel_groups
from pruning_core.coupling.parts import first_channels, reorders, told_apart
from pruning_core.coupling.structure import structures
from pruning_core.errors import SpecError
from pruning_core.even import Even, as_one, counted, counts_of
from pruning_core.names import carriers, named, unknown
from pruning_core.observe.calls import LayerCall, layer_calls
from pruning_core.patterns import matches
from pruning_core.reorder import Reorder
from pruning_core.scoring import Scorer, scored_groups
from pruning_core.spec import PruningSpec
from pruning_core.uncut import why_whole


@dataclass(frozen=True, slots=True)
class Selection:
    """What stays of every group, and why all of it where it does."""

    kept: dict[str, tuple[int, ...]] = field(default_factory=dict)  # group -> channels, sorted
    whole: dict[str, str] = field(default_factory=dict)  # group that keeps all its channels -> why
    reorders: dict[str, list[Reorder]] = field(default_factory=dict)  # done first; groups whose parts choose for themselves


def filtered(groups: Sequence[ChannelGroup], spec: PruningSpec) -> tuple[list[ChannelGroup], dict[str, str]]:
    """The groups that may be cut, and why each other one is left alone.

    Raises: SpecError when a glob or a layer name of the spec matches nothing.
    """
    names = {*named(groups), *(g.name for g in groups)}
    for option, patterns in (("exclude", spec.exclude), ("include", spec.include), ("ratios", tuple(spec.ratios))):
        for pattern in patterns:
            if not any(matches(name, pattern) for name in names):
                raise unknown(pattern, f"{option}: {pattern!r} matches no layer", option, groups)
    carried = carriers(groups)
    prunable: list[ChannelGroup] = []
    left: dict[str, str] = {}
    for group in groups:
        mine = (group.name, *group.layers, *carried[group.name])
        excluded = next((p for p in spec.exclude if any(matches(n, p) for n in mine)), None)
        if group.reason:
            left[group.name] = f"locked: {group.reason}"
        elif excluded is not None:
            left[group.name] = f'excluded by "{excluded}"'
        elif spec.include and not any(matches(n, p) for n in mine for p in spec.include):
            left[group.name] = "not among the included layers"
        else:
            prunable.append(group)
    return prunable, left


def select(
    groups: Sequence[ChannelGroup],
    scorer: Scorer,
    spec: PruningSpec,
    even: Even,
    analysis: Analysis,
    left: Mapping[str, str],
) -> Selection:
    """What stays of every group. Ties keep the lower channel. Groups of one set of `even` keep equal shares.

    `left`: why the other groups are left alone, for messages.
    """
    if not groups:
        return Selection()
    apart = told_apart(groups, analysis)
    groups = [apart.get(group.name, group) for group in groups]
    scored = scored_in(groups, scorer, spec, analysis)
    ready = as_one(scored, even, spec)
    costs = (
        CostModel(analysis, counted(groups, even, analysis), scorer.parameters, scorer.latencies) if spec.budget else None
    )
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
    counts: dict[str, int] = {}
    whole: dict[str, str] = {}
    for group in ready:
        wanted = kept[group.name]
        if spec.group_policy == "count" and not spec.budget and named_ratio(group, budget, -1.0) < 0:
            wanted = by_smallest_loss(group, wanted)
        count = round_kept(wanted, group, budget)
        counts |= counts_of(group, count)
        if count == group.channels:
            one_keeps_all = kept[group.name] < wanted == group.channels
            why = "group_policy count" if one_keeps_all else why_whole(group, wanted, spec.allocator, budget)
            whole |= dict.fromkeys(counts_of(group, count), why)
    best = {group.name: best_channels(group, counts[group.name]) for group in scored}
    in_order = {name: first_channels(group, best[name]) for name, group in apart.items()}
    return Selection(best | in_order, whole, {name: reorders(group, best[name]) for name, group in apart.items()})


def scored_in(groups: Sequence[ChannelGroup], scorer: Scorer, spec: PruningSpec, analysis: Analysis) -> list[ScoredGroup]:
    """The groups as an allocator sees them, scores and all."""
    blocks = {group.name: blocks_of(group, analysis) for group in groups}
    found = scored_groups(groups, scorer, spec, blocks, structures(groups, analysis.trace))
    calls = layer_calls(analysis.trace)
    found = [
        replace(s, originals=scorer.originals_of(g), read_strides=read_strides(g, calls))
        for s, g in zip(found, groups, strict=True)
    ]
    if not spec.ratios:
        return found
    all_groups = channel_groups(analysis)  # what a layer means depends on what it produces
    carried, others = carriers(all_groups), {group.name for group in all_groups}

    def own(group: ScoredGroup) -> tuple[str, ...]:
        """Its layers, but for those whose names are another group's: they mean that one alone."""
        return tuple(layer for layer in group.layers if layer == group.name or layer not in others)

    return [replace(group, layers=own(group), carriers=carried.get(group.name, ())) for group in found]


def read_strides(group: ChannelGroup, calls: Sequence[LayerCall]) -> frozenset[int]:
    """How many inputs one channel is to each layer that reads it. A grouped convolution reads a few of each group."""
    inputs = {(call.weight, call.in_axis) for call in calls if call.groups == 1}
    read = [m.channel_of for m in group.members if (m.tensor, m.axis) in inputs and not m.produces]
    return frozenset(int((channel_of >= 0).sum()) // group.channels for channel_of in read) - {0}


def by_smallest_loss(group: ScoredGroup, kept: float) -> float:
    """Channels to keep where every block ranks its own and all lose what the one with the smallest loss does."""
    if group.blocks is None:
        return kept
    going = _best_first(group)[round(kept) :]
    return group.channels - group.lot * int(np.bincount(group.blocks[going], minlength=group.lot).min())


def best_channels(group: ScoredGroup, count: int) -> tuple[int, ...]:
    """The best channels, sorted; the same number in every block. Ties keep the lower channel."""
    order = _best_first(group)
    if group.blocks is None:
        return tuple(sorted(order[:count].tolist()))
    keep = [order[group.blocks[order] == block][: count // group.lot] for block in range(group.lot)]
    return tuple(sorted(np.concatenate(keep).tolist()))


def _best_first(group: ScoredGroup) -> NDArray[np.int64]:
    return np.lexsort((np.arange(group.channels), -group.scores))


def selected_by_index(
    groups: Sequence[ChannelGroup], index: Mapping[str, tuple[int, ...]], left: Mapping[str, str], analysis: Analysis
) -> Selection:
    """What stays where channels are named. Parts that choose for themselves lose the named ones, as many of each.

    Raises: as `kept_by_index`; SpecError where parts would lose different numbers.
    """
    apart = told_apart([group for group in groups if group.name not in left], analysis)
    kept = kept_by_index([apart.get(group.name, group) for group in groups], index, left)
    moves: dict[str, list[Reorder]] = {}
    for name in [name for name in apart if name in kept]:
        blocks = apart[name].blocks
        assert blocks is not None
        if len(set(np.bincount(blocks[list(kept[name])], minlength=blocks.max() + 1).tolist())) > 1:
            fix = "name as many channels of each part, or take group_policy 'sum': then each goes from all parts"
            raise SpecError(f"the parts of {name!r} lose different numbers of channels", "index", fix)
        moves[name] = reorders(apart[name], kept[name])
        kept[name] = first_channels(apart[name], kept[name])
    return Selection(kept, {}, moves)


def kept_by_index(
    groups: Sequence[ChannelGroup], index: Mapping[str, tuple[int, ...]], left: Mapping[str, str]
) -> dict[str, tuple[int, ...]]:
    """Kept channels of every group of which a layer is named; a removal reaches all layers coupled with it.

    Raises: SpecError for a layer that does not exist or is locked, a channel out of range or in a locked part, layers
    of one group that disagree, and a removal that would leave none.
    """
    removed: dict[str, tuple[str, set[int]]] = {}
    layers = named(groups)
    for layer, channels in index.items():
        where = f"index[{layer!r}]"
        if layer not in layers:
            raise unknown(layer, f"there is no layer {layer!r}", where, groups)
        mine = layers[layer]
        width = len(mine[0][1].channel_of)
        for channel in channels:
            if channel >= width:
                raise SpecError(f"channel {channel} is out of range", where, f"the layer has channels 0 to {width - 1}")
            found = next(((g, m) for g, m in mine if m.channel_of[channel] >= 0), None)
            if found is None:
                raise SpecError(f"channel {channel} cannot go: no group holds it", where, "leave it out")
            group, member = found
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
