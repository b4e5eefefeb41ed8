"""From a model to a plan that is known to work: plan, try on a meta copy, retrace, compare; mend, or lock and plan again.

Nothing here reads or copies weight values except the scores. What no attribute explains is locked, so the loop ends
with a plan that verifies, at worst with the one that cuts nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.arguments import node_mends
from pruning_core.checks import check_devices, check_finite, check_model
from pruning_core.coupling.analysis import Analysis, Decisions, analyse, resolve
from pruning_core.coupling.groups import ChannelGroup, channel_groups
from pruning_core.coupling.rules import has_rule
from pruning_core.coupling.units import Ids, is_fixed
from pruning_core.errors import ModelError, VerifyError
from pruning_core.fingerprint import fingerprint, tensor_shapes
from pruning_core.inputs import ExampleInputs
from pruning_core.mend import conv_mends, mend
from pruning_core.plan import AttributeMend, GroupCut, Locked, PruningPlan, Rescale, TensorSlice
from pruning_core.retreat import lock_everything, retreat, uneven_widths
from pruning_core.select import Scorer, filtered, select
from pruning_core.spec import PruningSpec
from pruning_core.surgery import cut_copy, set_attributes, standard_mends
from pruning_core.trace import Trace, meta_twin, real_twin, record
from pruning_core.twin import named_tensors
from pruning_core.verify import Mismatch, Prediction, compare

MAX_ROUNDS = 80


@dataclass(frozen=True, slots=True, eq=False)
class Subject:
    """The caller's model, traced once."""

    model: nn.Module
    inputs: ExampleInputs
    tensors: dict[str, Tensor]
    trace: Trace

    def retrace(self, pruned: nn.Module) -> Trace:
        """Run a pruned throw-away copy the same way."""
        return record(pruned, self.inputs, named_tensors(pruned), keep_whole=has_rule, real=self.trace.real)


def study(model: nn.Module, inputs: ExampleInputs) -> Subject:
    """Trace the model: on the meta device, or for real where its forward needs values.

    Raises: ModelError when the model cannot be run on the example inputs.
    """
    check_model(model)
    tensors = named_tensors(model)
    check_devices(tensors, inputs)
    copy = meta_twin(model)
    trace = record(copy, inputs, named_tensors(copy), keep_whole=has_rule, real=False)
    if trace.error is not None:
        if any(t.device.type == "meta" for t in tensors.values()):
            raise _cannot_run(trace)
        copy = real_twin(model)
        trace = record(copy, inputs, named_tensors(copy), keep_whole=has_rule, real=True)
        if trace.error is not None:
            raise _cannot_run(trace)
    if not trace.outputs:
        raise ModelError(
            "the model returns no tensor", type(model).__name__, "return a tensor, or tuples, lists, dicts of them"
        )
    return Subject(model, inputs, tensors, trace)


def _cannot_run(trace: Trace) -> ModelError:
    error = trace.error
    text = f"{type(error).__name__}: {error}".splitlines()[0] if error else ""
    return ModelError(
        f"the model's forward fails on the example inputs: {text}",
        f"module {trace.module!r}" if trace.module else "the model's forward",
        "pass inputs that the model accepts, on the model's device",
    )


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

    @property
    def progress(self) -> int:
        return len(self.analysis.trace.ops) + 1 if self.mismatch is None else self.mismatch.op


def make_draft(analysis: Analysis, scorer: Scorer, spec: PruningSpec, even: frozenset[int] = frozenset()) -> Draft:
    groups = channel_groups(analysis)
    prunable, left = filtered(groups, spec)
    kept = select(prunable, scorer, spec, even)
    return draft_of(analysis, groups, kept, left)


def draft_of(
    analysis: Analysis, groups: list[ChannelGroup], kept: dict[str, tuple[int, ...]], left: dict[str, str]
) -> Draft:
    gone = [np.delete(g.labels, kept[g.name]) for g in groups if g.name in kept]
    removed = np.concatenate(gone) if gone else np.empty(0, dtype=np.int64)
    prediction = Prediction(analysis, removed)
    return Draft(analysis, groups, kept, left, prediction, slices_of(prediction))


def slices_of(prediction: Prediction) -> list[TensorSlice]:
    found: list[TensorSlice] = []
    for name, value in prediction.analysis.trace.tensors.items():
        for axis, ids in enumerate(prediction.analysis.axes[value.index]):
            if not is_fixed(ids) and len(prediction.axis(ids)) < len(ids):
                found.append(TensorSlice(tensor=name, axis=axis, width=len(ids), keep=prediction.kept(ids)))
    return found


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
    undone = frozenset(rescale.call for rescale in draft.rescales)
    draft.retraced = subject.retrace(pruned)
    draft.mismatch = compare(reference(subject, draft), draft.retraced, undone)


def reference(subject: Subject, draft: Draft) -> Prediction:
    """What the pruned run is compared with. A run on real values is compared with the original on the pruned values.

    Where sizes depend on values (routing, detection), the original's own run says nothing about the pruned one: it is
    run again with the removed entries of its tensors at zero.
    """
    if not subject.trace.real or not draft.slices:
        return draft.prediction
    muted = real_twin(subject.model, copy=True)
    named = named_tensors(muted)
    for cut in draft.slices:
        gone = np.setdiff1d(np.arange(cut.width), cut.keep)
        named[cut.tensor].data.index_fill_(cut.axis, torch.from_numpy(gone).to(named[cut.tensor].device), 0)
    trace = subject.retrace(muted)
    if trace.error is not None:
        return draft.prediction
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
    return prediction if fits else draft.prediction


def removed_labels(analysis: Analysis, slices: Iterable[TensorSlice]) -> Ids:
    """The components that the slices remove."""
    gone: list[Ids] = []
    for cut in slices:
        gone.append(analysis.labels[np.delete(analysis.tensor_axes(cut.tensor)[cut.axis], cut.keep)])
    removed: Ids = np.unique(np.concatenate(gone)) if gone else np.empty(0, dtype=np.int64)
    others: Ids = removed[removed != analysis.labels[0]]
    return others


def throwaway(subject: Subject, slices: list[TensorSlice], mends: list[AttributeMend], rescales: list[Rescale]) -> nn.Module:
    return cut_copy(subject.model, slices, mends, rescales, device=None if subject.trace.real else "meta")


def check_prunable(draft: Draft, spec: PruningSpec) -> None:
    """Raises: ModelError with the reasons when a cut was asked for and no group of channels is open to one."""
    if draft.kept or not (spec.ratio or spec.ratios):
        return
    reasons = dict.fromkeys(draft.left[g.name] for g in draft.groups if g.name in draft.left and g.layers)
    raise ModelError(
        "no channel of this model can be pruned: " + "; ".join(list(reasons)[:4]),
        "the whole model",
        "inspect(model, example_inputs) lists every layer with its reason; widen `include`, narrow `exclude`",
    )


def make_plan(subject: Subject, spec: PruningSpec) -> tuple[PruningPlan, Draft]:
    """Plan, try, and lock what does not work until what is left verifies.

    Raises: ModelError when the weights cannot be scored; VerifyError when not even an uncut copy traces like the model.
    """
    check_finite(subject.tensors)
    decisions = Decisions(reshape_axis=spec.reshape_axis, group_axis=spec.group_axis)
    scorer = Scorer(subject.tensors, spec.criterion)
    even: frozenset[int] = frozenset()
    for _ in range(MAX_ROUNDS):
        draft = make_draft(resolve(subject.trace, decisions), scorer, spec, even)
        try_draft(subject, draft)
        if draft.mismatch is not None:
            wider = even | uneven_widths(draft)
            if wider != even:
                evened = make_draft(draft.analysis, scorer, spec, wider)
                try_draft(subject, evened)
                if evened.progress > draft.progress:
                    draft, even = evened, wider
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
    try_draft(subject, draft)
    if draft.mismatch is not None:
        raise VerifyError(draft.mismatch.detail, f"module {draft.mismatch.module!r}", "report this model")
    return to_plan(subject, draft, spec), draft


def to_plan(subject: Subject, draft: Draft, spec: PruningSpec) -> PruningPlan:
    cut = [g for g in draft.groups if len(draft.kept.get(g.name, ())) < g.channels and g.name in draft.kept]
    untouched = {g.name: "the ratio, the rounding or the floor keeps them all" for g in draft.groups if g.name in draft.kept}
    reasons = {**untouched, **draft.left}
    return PruningPlan(
        fingerprint=fingerprint(subject.trace),
        tensors=tensor_shapes(subject.trace),
        inputs=subject.inputs.to_json(),
        spec=spec,
        cuts=tuple(
            GroupCut(group=g.name, layers=g.layers, width=g.channels, keep=draft.kept[g.name], positions=g.positions)
            for g in cut
        ),
        slices=tuple(draft.slices),
        mends=tuple(draft.mends),
        rescales=tuple(draft.rescales),
        choices=tuple((op, k, choice.taken) for (op, k), choice in draft.analysis.choices.items()),
        locked=tuple(
            Locked(group=g.name, layers=g.layers, width=g.channels * g.positions, reason=reasons[g.name])
            for g in draft.groups
            if g not in cut and g.layers
        ),
        approximate=tuple((g.name, g.approximate) for g in cut if g.approximate),
    )


def redraft(subject: Subject, plan: PruningPlan) -> Draft:
    """The draft that a stored plan stands for, on this model: same choices, removed ids read off the slices."""
    decisions = Decisions(choices={(op, k): taken for op, k, taken in plan.choices})
    analysis = analyse(subject.trace, decisions)
    prediction = Prediction(analysis, removed_labels(analysis, plan.slices))
    return Draft(analysis, [], {}, {}, prediction, slices_of(prediction), list(plan.mends), list(plan.rescales))
