"""The public functions: inspect, plan, apply, prune. Each is callable alone in a notebook and has a frozen result."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from torch import nn

from pruning_core.calibration import Calibration, device_of
from pruning_core.compensation import compensate, constant_inputs, left_as_cut
from pruning_core.cost import cost_of
from pruning_core.cost_model import CostModel
from pruning_core.coupling.analysis import Decisions, resolve
from pruning_core.coupling.groups import channel_groups
from pruning_core.criteria import NEEDS, WITH_DATA, WITH_LABELS
from pruning_core.damage import Damages
from pruning_core.draft import Draft
from pruning_core.errors import PlanError, SpecError, VerifyError, nearest
from pruning_core.even import counted
from pruning_core.fingerprint import check_same_tensors, fingerprint, tensor_shapes
from pruning_core.inputs import ExampleInputs
from pruning_core.iterative import plan_in_steps
from pruning_core.latency_table import LatencyTable
from pruning_core.modes import in_default_modes
from pruning_core.observe.observations import observe
from pruning_core.oracle import mask_error
from pruning_core.plan import PruningPlan
from pruning_core.planner import keeps_function, redraft, throwaway, verified
from pruning_core.report import ModelReport, PruneReport, layer_rows
from pruning_core.scoring import Scorer
from pruning_core.spec import PruningSpec
from pruning_core.study import Subject, study
from pruning_core.surgery import cut_copy

CHECKS = ("structure", "numeric")


@dataclass(frozen=True, slots=True, eq=False)
class PruneResult:
    """A verified model, the plan that made it, and what it brought."""

    model: nn.Module
    plan: PruningPlan
    report: PruneReport


@in_default_modes
def inspect(model: nn.Module, example_inputs: object) -> ModelReport:
    """Every layer: its width, the group it is cut with or the reason why not, parameters and MACs.

    Raises: ModelError when the model cannot be run on the example inputs. The model is not changed.
    """
    subject = study(model, ExampleInputs.of(example_inputs))
    groups = channel_groups(resolve(subject.trace, Decisions()))
    return ModelReport(layer_rows(model, subject.trace, groups), cost_of(model, subject.trace))


@in_default_modes
def plan(
    model: nn.Module,
    example_inputs: object,
    spec: PruningSpec,
    calibration: object = None,
    *,
    latencies: LatencyTable | None = None,
) -> PruningPlan:
    """Decide what goes. The plan has been tried on a copy without weights: `apply` will succeed on this model.

    `calibration`: unlabelled inputs (a tensor, batches, a `Calibration`), where the spec's criterion reads data.

    Raises: SpecError, ModelError, VerifyError. The model is not changed.
    """
    data = Calibration.of(calibration, model)
    subject = study(model, ExampleInputs.of(example_inputs))
    spec = spec.resolved(data is not None)
    return plan_in_steps(subject, spec, data, lambda s, part: scorer_of(s, part, data, latencies))[0]


@in_default_modes
def apply(model: nn.Module, plan: PruningPlan, example_inputs: object = None) -> nn.Module:
    """A pruned copy, re-traced and compared with the plan before it is returned. The caller's model is not changed.

    `example_inputs` are taken from the plan where none are given (shapes and dtypes; floating values are made up).
    Raises: PlanError when the plan was made for another model; VerifyError when the copy does not do what it predicts.
    """
    subject = study(model, _inputs_of(plan, model) if example_inputs is None else ExampleInputs.of(example_inputs))
    check_same_tensors(plan.tensors, tensor_shapes(subject.trace))
    if fingerprint(subject.trace) != plan.fingerprint:
        raise PlanError(
            "the model has the plan's tensors but makes other calls",
            type(model).__name__,
            "apply the plan to the model it was made for, with inputs of the same shapes, or re-plan",
        )
    draft = redraft(subject, plan)
    subject = in_order(subject, draft)
    if {c.tensor: c.numbers for c in draft.slices if c.numbers} != {c.tensor: c.numbers for c in plan.slices if c.numbers}:
        raise PlanError(
            "the model's buffers hold other channel numbers than the plan's",
            type(model).__name__,
            "apply the plan to the model it was made for, or re-plan",
        )
    return _apply(subject, draft, plan)


def _inputs_of(plan: PruningPlan, model: nn.Module) -> ExampleInputs:
    """Inputs as the plan was made with, where the model is."""
    device = device_of(model)
    return ExampleInputs.from_json(dict(plan.inputs)).map(lambda t: t if device is None else t.to(device))


def _apply(subject: Subject, draft: Draft, plan: PruningPlan) -> nn.Module:
    pruned = throwaway(subject, list(plan.slices), list(plan.mends), list(plan.rescales))
    mismatch = verified(subject, draft, pruned)[1]
    if mismatch is not None:
        raise VerifyError(mismatch.detail, f"module {mismatch.module!r}", "re-plan this model")
    return cut_copy(subject.model, plan.slices, plan.mends, plan.rescales)


@in_default_modes
def prune(
    model: nn.Module,
    example_inputs: object,
    spec: PruningSpec,
    calibration: object = None,
    *,
    check: str = "structure",
    latencies: LatencyTable | None = None,
    on_compensated: Callable[[nn.Module], None] | None = None,
) -> PruneResult:
    """Plan, cut a copy, verify, and mend what the copy lost (`spec.compensation`) where there is calibration data.

    `calibration`: a tensor [N, ...], batches of inputs, or a `Calibration`; labels are only needed by gradient criteria.
    `on_compensated` is shown the model in between, where BatchNorm statistics are taken anew as well; it only looks.
    `check="numeric"` also compares numbers with the muted original on the example inputs, before anything is mended.
    Raises: SpecError, ModelError, VerifyError. The caller's model is bit-identical afterwards.
    """
    if check not in CHECKS:
        raise SpecError(f"check {check!r} is unknown", "check", nearest(check, CHECKS))
    data = Calibration.of(calibration, model)
    start = time.perf_counter()
    subject = study(model, ExampleInputs.of(example_inputs))
    spec = spec.resolved(data is not None)
    if spec.compensation != "none" and data is None:
        fix = "pass calibration=..., unlabelled inputs are enough, or compensation='none'"
        raise SpecError(f"compensation {spec.compensation!r} needs calibration data", "calibration", fix)
    if spec.recalibrate_bn and data is None:
        fix = "pass calibration=..., unlabelled inputs are enough, or leave it out"
        raise SpecError("recalibrate_bn needs calibration data", "calibration", fix)
    decided, draft, notes, predicted_ms = _decide(subject, spec, data, latencies)
    subject = subject.reordered(draft.reorders)
    pruned = cut_copy(subject.model, decided.slices, decided.mends, decided.rescales)
    error = None
    on_meta = any(t.device.type == "meta" for t in subject.tensors.values())
    if check == "numeric" and not on_meta:
        error = mask_error(subject.model, pruned, draft.prediction, subject.inputs)
    repairs = compensate(subject, pruned, draft, data, spec, on_compensated) if data is not None and not on_meta else ()
    report = PruneReport(
        before=cost_of(model, subject.trace),
        after=cost_of(pruned, draft.retraced),
        channels_before=decided.channels_before,
        channels_after=decided.channels_after,
        mask_error=error,
        seconds=time.perf_counter() - start,
        repairs=repairs,
        notes=(*decided.notes, *notes, *left_as_cut(draft, decided.spec, repairs), *constant_inputs(repairs)),
        predicted_ms=predicted_ms,
    )
    return PruneResult(pruned, decided, report)


def in_order(subject: Subject, draft: Draft) -> Subject:
    """What the plan cuts. Raises: VerifyError when the model with its parts put in order computes something else."""
    if keeps_function(subject, draft):
        return subject.reordered(draft.reorders)
    names = ", ".join(dict.fromkeys(item.tensor for item in draft.reorders))
    raise VerifyError("the parts of a split axis are not seen to be independent", names, "re-plan with group_policy 'sum'")


def _decide(
    subject: Subject, spec: PruningSpec, data: Calibration | None, latencies: LatencyTable | None
) -> tuple[PruningPlan, Draft, list[str], tuple[float, float] | None]:
    """The plan, its draft, notes and predicted latencies. What was observed for it is let go of with the scorer."""
    scorer = scorer_of(subject, spec, data, latencies)

    def scorer_for(now: Subject, part: PruningSpec) -> Scorer:
        return scorer if now is subject and part == spec else scorer_of(now, part, data, latencies)

    decided, draft = plan_in_steps(subject, spec, data, scorer_for)
    notes = scorer.damages.notes if scorer.damages else []
    return decided, draft, notes, predicted_latency(draft, scorer)


def predicted_latency(draft: Draft, scorer: Scorer) -> tuple[float, float] | None:
    """Milliseconds of the calls before and after, by the scorer's latency table; None where it has none."""
    if scorer.latencies is None:
        return None
    groups = [group for group in draft.groups if group.name in draft.kept]
    parts = counted(groups, draft.even, draft.analysis)
    costs = CostModel(draft.analysis, parts, scorer.parameters, scorer.latencies)
    labels = np.concatenate([group.labels[list(draft.kept[group.name])] for group in groups])
    shares = [np.isin(part.labels, labels).mean() for part in parts]
    counts = np.array([round(share * part.channels) for share, part in zip(shares, parts, strict=True)], dtype=np.int64)
    return costs.total("latency_ms", costs.full), costs.total("latency_ms", counts)


def scorer_of(subject: Subject, spec: PruningSpec, data: Calibration | None, latencies: LatencyTable | None) -> Scorer:
    """What scores the channels. Raises: SpecError for a criterion that reads data when there is none."""
    needs = NEEDS.get(spec.criterion, frozenset())
    if needs & WITH_DATA and data is None:
        labels = "labelled " if needs & WITH_LABELS else ""
        fix = f"pass calibration=..., {'' if labels else 'unlabelled inputs are enough, '}or use 'l2_norm'"
        raise SpecError(f"criterion {spec.criterion!r} needs {labels}calibration data", "calibration", fix)
    damages = Damages(subject, data, spec.seed) if "damage" in needs and data is not None else None
    seen = observe(subject, data, needs - {"damage"})
    scorer = Scorer(subject.tensors, spec.criterion, seen, spec.seed, damages)
    if latencies is None and "latency_ms" in spec.budget:
        latencies = LatencyTable(device=str(device_of(subject.model) or "cpu"))
    scorer.latencies = latencies
    return scorer
