"""From a model to a plan that is known to work: plan, try on a meta copy, retrace, compare; mend, or lock and plan again.

Nothing here reads or copies weight values except the scores, and the check of parts that are put in order. What no
attribute explains is locked, so the loop ends with a plan that verifies, at worst with the one that cuts nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from types import MappingProxyType

import numpy as np
import torch
from torch import nn

from pruning_core.arguments import node_mends
from pruning_core.checks import check_finite
from pruning_core.coupling.analysis import ChoiceKey, Decisions, analyse, resolve
from pruning_core.draft import Draft, make_draft, removed_labels, slices_of
from pruning_core.errors import ModelError, SpecError, VerifyError
from pruning_core.even import Even, joined
from pruning_core.fingerprint import fingerprint, tensor_shapes
from pruning_core.memos import forgotten
from pruning_core.mend import conv_mends, mend
from pruning_core.names import named
from pruning_core.oracle import same_function
from pruning_core.plan import AttributeMend, GroupCut, Locked, PruningPlan, Rescale, TensorSlice
from pruning_core.prediction import Prediction
from pruning_core.retreat import lock_everything, retreat, uneven
from pruning_core.scoring import Scorer
from pruning_core.spec import PruningSpec
from pruning_core.study import Subject
from pruning_core.surgery import cut_copy, set_attributes, standard_mends
from pruning_core.trace import Trace, real_twin
from pruning_core.tree import is_prunable_dtype
from pruning_core.twin import named_tensors
from pruning_core.uncut import KEPT_WHOLE
from pruning_core.verify import Mismatch, compare

MAX_ROUNDS = 80
NONE: Mapping[ChoiceKey, int] = MappingProxyType({})


def try_draft(subject: Subject, draft: Draft) -> None:
    """Build the pruned copy, set the sizes that follow from the cut, retrace, compare; mend as long as that helps."""
    pruned = throwaway(subject, draft.slices, [], [])
    draft.mends = standard_mends(subject.model, pruned) + conv_mends(subject.model, draft.prediction)
    draft.mends += node_mends(subject.model, draft.prediction)
    set_attributes(pruned, draft.mends)
    attempt(subject, draft, pruned)
    mend(subject.model, draft, lambda: attempt(subject, draft))


def attempt(subject: Subject, draft: Draft, pruned: nn.Module | None = None) -> None:
    """Run the pruned throw-away copy and write into the draft where it first disagrees."""
    if pruned is None:
        pruned = throwaway(subject, draft.slices, draft.mends, draft.rescales)
    draft.retraced, draft.mismatch = verified(subject, draft, pruned)


def verified(subject: Subject, draft: Draft, pruned: nn.Module) -> tuple[Trace, Mismatch | None]:
    """The pruned copy's run, and where it first disagrees with the plan.

    Where a run on real values disagrees, it is looked at again in double precision: rounding may decide how many boxes
    are left.
    """
    retraced = subject.retrace(pruned)
    mismatch = compare(reference(subject, draft) or draft.prediction, retraced, draft.rescales)
    if mismatch is not None and subject.trace.real and draft.slices:
        prediction = reference(subject, draft, double=True)
        if prediction is not None:
            precise = compare(prediction, subject.retrace(pruned, double=True), draft.rescales)
            if precise is None or precise.op > mismatch.op:
                mismatch = precise
    return retraced, mismatch


def reference(subject: Subject, draft: Draft, *, double: bool = False) -> Prediction | None:
    """What a run on real values is compared with: the original on the pruned values; None where that is of no use.

    Where sizes depend on values (routing, detection), the original's own run says nothing about the pruned one: it is
    run again with the removed entries of its tensors at zero.
    """
    if not subject.trace.real or not draft.slices:
        return None
    muted = real_twin(subject.model, copy=True)
    named = named_tensors(muted)
    for cut in draft.slices:
        if cut.numbers or not is_prunable_dtype(named[cut.tensor].dtype):  # channel numbers stay as they are
            continue
        gone = np.setdiff1d(np.arange(cut.width), cut.keep)
        named[cut.tensor].data.index_fill_(cut.axis, torch.from_numpy(gone).to(named[cut.tensor].device), 0)
    trace = subject.retrace(muted, double=double)
    if trace.error is not None:
        return None
    trace.positions, trace.pins = subject.trace.positions, subject.trace.pins
    same = 0  # calls until the runs part ways; choices are numbered by call
    for one, other in zip(trace.ops, subject.trace.ops, strict=False):
        if one.func is not other.func:
            break
        same += 1
    choices = {key: choice.taken for key, choice in draft.analysis.choices.items() if key[0] < same}
    analysis = analyse(trace, draft.analysis.decisions.with_choices(choices))
    prediction = Prediction(analysis, removed_labels(analysis, draft.slices))
    as_planned = {(c.tensor, c.axis): c.keep for c in draft.slices}
    fits = as_planned == {(c.tensor, c.axis): c.keep for c in slices_of(prediction)}
    return prediction if fits else None


def throwaway(subject: Subject, slices: list[TensorSlice], mends: list[AttributeMend], rescales: list[Rescale]) -> nn.Module:
    return cut_copy(subject.model, slices, mends, rescales, device=None if subject.trace.real else "meta")


def keeps_function(subject: Subject, draft: Draft) -> bool:
    """Whether the model with its parts put in order still computes what it did. Without values nothing shows."""
    if not draft.reorders or any(t.device.type == "meta" for t in subject.tensors.values()):
        return True
    with forgotten(subject.trace.remembered_by):
        return same_function(subject.model, subject.reordered(draft.reorders).model, subject.inputs)


def check_prunable(draft: Draft, spec: PruningSpec) -> None:
    """Raises: SpecError for a layer that was named with a ratio and cannot be cut; ModelError with the reasons when a cut
    was asked for and no group of channels is open to one.
    """
    meant = named(draft.groups)
    for layer, ratio in spec.ratios.items():
        locks = [draft.left.get(group.name, "") for group, _ in meant.get(layer, ())]
        if ratio and locks and all(reason.startswith("locked: ") for reason in locks):
            raise SpecError(f"ratios: {layer!r} cannot be cut: {locks[0]}", f"ratios[{layer!r}]", "take it out of `ratios`")
    if draft.kept or not (spec.ratio or spec.ratios or spec.budget):
        return
    reasons = dict.fromkeys(draft.left[g.name] for g in draft.groups if g.name in draft.left and g.layers)
    raise ModelError(
        "no channel of this model can be pruned: " + "; ".join(list(reasons)[:4]),
        "the whole model",
        "inspect(model, example_inputs) lists every layer with its reason; widen `include`, narrow `exclude`",
    )


def make_plan(
    subject: Subject, spec: PruningSpec, scorer: Scorer | None = None, choices: Mapping[ChoiceKey, int] = NONE
) -> tuple[PruningPlan, Draft]:
    """Plan, try, and lock what does not work until what is left verifies. Without a scorer, weights alone are scored.

    `choices`: factors of split axes that are settled already.

    Raises: ModelError when the weights cannot be scored; VerifyError when not even an uncut copy traces like the model.
    """
    check_finite(subject.tensors)
    if scorer is None:
        spec = spec.resolved(False)
        scorer = Scorer(subject.tensors, spec.criterion)
    decisions = Decisions(choices, {}, frozenset(), spec.reshape_axis, spec.group_axis, spec.group_policy)
    even: Even = frozenset()
    for _ in range(MAX_ROUNDS):
        draft = make_draft(resolve(subject.trace, decisions), scorer, spec, even)
        try_draft(subject.reordered(draft.reorders), draft)
        if draft.mismatch is not None:
            wider = joined((*even, *uneven(draft)))
            if wider != even:
                evened = with_equal_shares(subject, draft, scorer, spec, wider)
                if evened is not None and evened.progress > draft.progress:
                    draft, even = evened, wider
        if draft.mismatch is None and not keeps_function(subject, draft):
            decisions = replace(decisions, apart=False)
            continue
        if draft.mismatch is None:
            check_prunable(draft, spec)
            return to_plan(subject, draft, spec), draft
        if not draft.slices:
            raise VerifyError(
                f"the model does not repeat itself: {draft.mismatch.detail}",
                f"module {draft.mismatch.module!r}",
                "make its forward deterministic for the example inputs (seeds, no state kept between calls)",
            )
        decisions = retreat(draft, decisions)
    draft = make_draft(resolve(subject.trace, lock_everything(subject.trace, decisions)), scorer, spec)
    try_draft(subject.reordered(draft.reorders), draft)
    if draft.mismatch is not None:
        raise VerifyError(draft.mismatch.detail, f"module {draft.mismatch.module!r}", "report this model")
    if spec.budget:
        check_prunable(draft, spec)
    return to_plan(subject, draft, spec), draft


def with_equal_shares(subject: Subject, draft: Draft, scorer: Scorer, spec: PruningSpec, even: Even) -> Draft | None:
    """The draft with these groups at equal shares; None where the request does not allow that and it would not help.

    Raises: SpecError where it would help, of ratios that are named apart or of a budget that is out of reach then.
    """
    refused: SpecError | None = None
    try:
        evened = make_draft(draft.analysis, scorer, spec, even)
    except SpecError as error:
        refused = error
        halves = replace(spec, ratio=0.5, ratios={}, budget={}, allocator="uniform", min_channels=1)
        afresh = copy(scorer)
        afresh.originals = {}  # half of what is left: where rounds went before, half of all may be gone
        evened = make_draft(draft.analysis, afresh, halves, even)
    try_draft(subject.reordered(evened.reorders), evened)
    if refused is None:
        return evened
    if evened.progress > draft.progress:
        raise refused
    return None


def to_plan(subject: Subject, draft: Draft, spec: PruningSpec) -> PruningPlan:
    cut = [g for g in draft.groups if len(draft.kept.get(g.name, ())) < g.channels and g.name in draft.kept]
    untouched = {name: draft.whole.get(name, KEPT_WHOLE) for name in draft.kept}
    reasons = {**untouched, **draft.left}
    told = sorted(tuple(g.name for g in draft.groups if g.name in names & draft.kept.keys()) for names in draft.even)
    return PruningPlan(
        fingerprint=fingerprint(subject.trace),
        tensors=tensor_shapes(subject.trace),
        inputs=subject.inputs.to_json(),
        spec=spec,
        cuts=tuple(
            GroupCut(
                group=g.name,
                layers=g.layers,
                width=g.channels,
                keep=draft.kept[g.name],
                positions=g.positions,
                apart=g.name in draft.apart,
            )
            for g in cut
        ),
        slices=tuple(draft.slices),
        mends=tuple(draft.mends),
        rescales=tuple(draft.rescales),
        choices=tuple((op, k, choice.taken) for (op, k), choice in draft.analysis.choices.items()),
        locked=tuple(
            Locked(
                group=g.name,
                layers=g.layers,
                width=g.channels * g.positions,
                reason=reasons.get(g.name, "not named in index"),
                prunable=g.name not in draft.left and (g.name in draft.kept or bool(spec.index)),
            )
            for g in draft.groups
            if g not in cut and g.layers
        ),
        approximate=tuple((g.name, g.approximate) for g in cut if g.approximate),
        not_run=subject.not_run,
        even=tuple(names for names in told if len(names) > 1),
        reorders=tuple(draft.reorders),
    )


def redraft(subject: Subject, plan: PruningPlan) -> Draft:
    """The draft that a stored plan stands for, on this model: same choices, removed ids read off the slices."""
    choices = {(op, k): taken for op, k, taken in plan.choices}
    decisions = Decisions(choices=choices, group_policy=plan.spec.group_policy)
    analysis = analyse(subject.trace, decisions)
    prediction = Prediction(analysis, removed_labels(analysis, plan.slices))
    slices = slices_of(prediction)
    reorders = list(plan.reorders)
    return Draft(analysis, [], {}, {}, prediction, slices, list(plan.mends), list(plan.rescales), reorders=reorders)
