"""One try at a plan: what was decided, what it predicts, and what the pruned run said to it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pruning_core.coupling.analysis import Analysis
from pruning_core.coupling.groups import ChannelGroup, channel_groups
from pruning_core.coupling.rules.index import known_pick
from pruning_core.coupling.units import Ids, is_fixed
from pruning_core.even import Even
from pruning_core.plan import AttributeMend, Rescale, TensorSlice
from pruning_core.prediction import Prediction
from pruning_core.reorder import Reorder
from pruning_core.scoring import Scorer, unseen
from pruning_core.select import Selection, filtered, select, selected_by_index
from pruning_core.spec import PruningSpec
from pruning_core.trace import Trace
from pruning_core.verify import Mismatch


@dataclass(slots=True, eq=False)
class Draft:
    """One try: what was decided and what the pruned run said to it."""

    analysis: Analysis
    groups: list[ChannelGroup]
    kept: dict[str, tuple[int, ...]]
    left: dict[str, str]
    prediction: Prediction
    slices: list[TensorSlice]
    mends: list[AttributeMend] = field(default_factory=list)
    rescales: list[Rescale] = field(default_factory=list)
    mismatch: Mismatch | None = None
    retraced: Trace = field(default_factory=Trace)
    even: Even = frozenset()  # groups that keep equal shares
    whole: dict[str, str] = field(default_factory=dict)  # groups that keep all their channels though they could be cut: why
    reorders: list[Reorder] = field(default_factory=list)  # done first: what is kept is in places of the reordered model
    apart: frozenset[str] = frozenset()  # groups whose parts have lost positions of their own

    @property
    def progress(self) -> int:
        return len(self.analysis.trace.ops) + 1 if self.mismatch is None else self.mismatch.op


def make_draft(analysis: Analysis, scorer: Scorer, spec: PruningSpec, even: Even = frozenset()) -> Draft:
    groups = channel_groups(analysis)
    prunable, left = filtered(groups, spec)
    if spec.index:
        named = selected_by_index(groups, spec.index, left, analysis)
        return _selected(draft_of(analysis, groups, named.kept, left), named)
    blind = unseen(prunable, scorer)
    if len(blind) < len(prunable):  # where the criterion sees nothing at all, it says so itself
        left |= blind
        prunable = [group for group in prunable if group.name not in blind]
    selected = select(prunable, scorer, spec, even, analysis, left)
    draft = _selected(draft_of(analysis, groups, selected.kept, left), selected)
    draft.even = even
    return draft


def _selected(draft: Draft, selection: Selection) -> Draft:
    draft.whole, draft.apart = selection.whole, frozenset(selection.reorders)
    draft.reorders = [item for items in selection.reorders.values() for item in items]
    return draft


def draft_of(
    analysis: Analysis, groups: list[ChannelGroup], kept: dict[str, tuple[int, ...]], left: dict[str, str]
) -> Draft:
    gone = [np.delete(g.labels, kept[g.name]) for g in groups if g.name in kept]
    removed = np.concatenate(gone) if gone else np.empty(0, dtype=np.int64)
    prediction = Prediction(analysis, removed)
    return Draft(analysis, groups, kept, left, prediction, slices_of(prediction))


def slices_of(prediction: Prediction) -> list[TensorSlice]:
    numbers = new_numbers(prediction)
    found: list[TensorSlice] = []
    for name, value in prediction.analysis.trace.tensors.items():
        for axis, ids in enumerate(prediction.analysis.axes[value.index]):
            now = numbers.get(value.index, ())
            if not is_fixed(ids) and (len(prediction.axis(ids)) < len(ids) or now):
                keep = prediction.kept(ids)
                found.append(TensorSlice(tensor=name, axis=axis, width=len(ids), keep=keep, numbers=now))
    return found


def new_numbers(prediction: Prediction) -> dict[int, tuple[int, ...]]:
    """The channel numbers in integer buffers after the cut, of those buffers where they change."""
    found: dict[int, tuple[int, ...]] = {}
    held = prediction.analysis.trace.positions
    for op in prediction.analysis.trace.ops if held else ():
        pick = known_pick(op)
        if pick is not None and pick[1].index in held:
            dim, value = pick
            keeps = prediction.keeps[prediction.analysis.axes[op.args[0].index][dim]]
            old = held[value.index]
            if not keeps.all():
                found[value.index] = tuple((np.cumsum(keeps) - 1)[old[keeps[old]]].tolist())
    return found


def removed_labels(analysis: Analysis, slices: Iterable[TensorSlice]) -> Ids:
    """The components that the slices remove."""
    gone: list[Ids] = []
    for cut in slices:
        gone.append(analysis.labels[np.delete(analysis.tensor_axes(cut.tensor)[cut.axis], cut.keep)])
    removed: Ids = np.unique(np.concatenate(gone)) if gone else np.empty(0, dtype=np.int64)
    others: Ids = removed[removed != analysis.labels[0]]
    return others
