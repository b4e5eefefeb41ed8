"""Iterative pruning: score, prune, mend, and score again; the steps end as one plan for the original model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from pruning_core.calibration import Calibration
from pruning_core.compensation import compensate
from pruning_core.cost import Cost, cost_of
from pruning_core.coupling.analysis import ChoiceKey, Decisions, resolve
from pruning_core.coupling.groups import ChannelGroup, Member, channel_groups, name_of
from pruning_core.draft import Draft, removed_labels, slices_of
from pruning_core.errors import VerifyError
from pruning_core.plan import PruningPlan, TensorSlice
from pruning_core.planner import keeps_function, make_plan, to_plan, try_draft
from pruning_core.prediction import Prediction
from pruning_core.reorder import Reorder
from pruning_core.reorder import composed as composed_reorders
from pruning_core.scoring import Scorer
from pruning_core.select import filtered
from pruning_core.spec import PruningSpec
from pruning_core.study import Subject, study
from pruning_core.surgery import cut_copy

ScorerOf = Callable[[Subject, PruningSpec], Scorer]


def plan_in_steps(
    subject: Subject, spec: PruningSpec, calibration: Calibration | None, scorer_of: ScorerOf
) -> tuple[PruningPlan, Draft]:
    """`spec.steps` rounds of plan and cut, each on the mended result of the one before; what is asked for grows evenly.

    Ratios are shares of the original widths in every round, so the last round ends where a single plan would.

    Raises: what a single plan raises; VerifyError when the rounds do not add up to one plan.
    """
    if spec.steps == 1 or spec.index:
        return make_plan(subject, spec, scorer_of(subject, spec))
    slices: dict[tuple[str, int], TensorSlice] = {}
    reorders: list[Reorder] = []
    apart: frozenset[str] = frozenset()
    now, full = subject, cost_of(subject.model, subject.trace)
    groups: Sequence[ChannelGroup] = ()  # of the original
    choices: dict[ChoiceKey, int] = {}  # heads or their size: what the first round cuts, the others do
    for number in range(1, spec.steps + 1):
        part = renamed(_share(spec, number, full), groups, slices)
        scorer = scorer_of(now, part)
        scorer.originals = originals(groups, slices)
        plan, draft = make_plan(now, part, scorer, choices)
        apart = apart if groups else draft.apart
        groups = groups or draft.groups
        choices = {key: choice.taken for key, choice in draft.analysis.choices.items()} | choices
        reorders = composed_reorders(reorders, plan.reorders, slices)
        slices = composed(slices, plan.slices)
        if number < spec.steps:
            now = now.reordered(plan.reorders)
            model = cut_copy(now.model, plan.slices, plan.mends, plan.rescales)
            if calibration is not None:
                compensate(now, model, draft, calibration, part)
            now = study(model, subject.inputs)
    draft.reorders, draft.apart = reorders, apart
    return _as_one(subject, spec, list(slices.values()), choices, draft)


def _share(spec: PruningSpec, number: int, full: Cost) -> PruningSpec:
    """What is asked for up to this round: a geometric way to every ratio of the original, and to every budget."""
    done = number / spec.steps
    ratios = {name: _up_to(done, ratio) for name, ratio in spec.ratios.items()}
    amounts: Mapping[str, float] = {"macs": full.macs, "params": full.params, "size_mb": full.size_bytes / 1e6}
    budget: dict[str, float | str] = {}
    for name, target in spec.budget.items():
        if name in amounts:
            goal = amounts[name] / float(target.rstrip("xX")) if isinstance(target, str) else target
            budget[name] = amounts[name] ** (1 - done) * goal**done
        elif isinstance(target, str):  # relative to the model of the round before
            budget[name] = f"{float(target.rstrip('xX')) ** (1 / spec.steps)}x"
        else:
            budget[name] = target
    final = done == 1 or spec.budget
    floor = spec.min_channels if final else max(spec.min_channels, 2)  # an axis of length 1 has no channels to count
    return replace(spec, ratio=_up_to(done, spec.ratio), ratios=ratios, budget=budget, min_channels=floor, steps=1)


def _up_to(done: float, ratio: float) -> float:
    share: float = 1 - (1 - ratio) ** done
    return ratio if done == 1 else share


def renamed(spec: PruningSpec, groups: Sequence[ChannelGroup], slices: Mapping[tuple[str, int], TensorSlice]) -> PruningSpec:
    """The same, where parts of layers have names with the positions that are left: `qkv[0:48]` becomes `qkv[0:36]`."""
    taken: set[str] = set()
    now = {group.name: name_of([_left_of(member, slices) for member in group.members], taken) for group in groups}
    ratios = {now.get(name, name): ratio for name, ratio in spec.ratios.items()}
    exclude, include = (tuple(now.get(name, name) for name in names) for names in (spec.exclude, spec.include))
    return replace(spec, ratios=ratios, exclude=exclude, include=include)


def _left_of(member: Member, slices: Mapping[tuple[str, int], TensorSlice]) -> Member:
    cut = slices.get((member.tensor, member.axis))
    if cut is None:
        return member
    return replace(member, channel_of=member.channel_of.reshape(member.blocks, -1)[:, list(cut.keep)].ravel())


def originals(
    groups: Sequence[ChannelGroup], slices: Mapping[tuple[str, int], TensorSlice]
) -> dict[tuple[str, int], NDArray[np.float64]]:
    """How many channels of the original each position that is left stands for, on every axis of its groups."""
    found: dict[tuple[str, int], NDArray[np.float64]] = {}
    for group in groups:
        for member in group.members:
            key = member.tensor, member.axis
            left = _left_of(member, slices).channel_of
            mine = left >= 0
            found.setdefault(key, np.ones(len(left)))[mine] = group.channels / max(len(np.unique(left[mine])), 1)
    return found


def composed(
    first: Mapping[tuple[str, int], TensorSlice], then: Sequence[TensorSlice]
) -> dict[tuple[str, int], TensorSlice]:
    """Slices of a sliced model, in the positions of the original."""
    found = dict(first)
    for cut in then:
        before = found.get((cut.tensor, cut.axis))
        keep = cut.keep if before is None else tuple(before.keep[k] for k in cut.keep)
        width = cut.width if before is None else before.width
        found[cut.tensor, cut.axis] = replace(cut, width=width, keep=keep)
    return found


def _as_one(
    subject: Subject,
    spec: PruningSpec,
    slices: list[TensorSlice],
    choices: Mapping[ChoiceKey, int],
    last: Draft,
) -> tuple[PruningPlan, Draft]:
    decisions = Decisions(choices, {}, frozenset(), spec.reshape_axis, spec.group_axis, spec.group_policy)
    analysis = resolve(subject.trace, decisions)
    prediction = Prediction(analysis, removed_labels(analysis, slices))
    groups = channel_groups(analysis)
    prunable, left = filtered(groups, spec)
    kept = {group.name: _kept(group, prediction) for group in prunable}
    asked = {(cut.tensor, cut.axis): cut.keep for cut in slices}
    if all(kept.values()):  # else a later round has cut inside what an earlier one took as a whole
        draft = Draft(analysis, groups, kept, last.left | left, prediction, slices_of(prediction), whole=last.whole)
        if {(cut.tensor, cut.axis): cut.keep for cut in draft.slices} == asked:
            draft.reorders, draft.apart = last.reorders, last.apart
            try_draft(subject.reordered(draft.reorders), draft)
            if draft.mismatch is None and keeps_function(subject, draft):
                return to_plan(subject, draft, spec), draft
    raise VerifyError("the rounds of iterative pruning do not add up to one plan", "steps", "use steps=1")


def _kept(group: ChannelGroup, prediction: Prediction) -> tuple[int, ...]:
    gone = np.zeros(int(prediction.analysis.labels.max()) + 1, dtype=bool)
    gone[prediction.analysis.labels[~prediction.keeps]] = True
    return tuple(np.flatnonzero(~gone[group.labels]).tolist())
