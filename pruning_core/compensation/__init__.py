"""After the cut: keep what the model knew, without labels and without gradients."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from pruning_core.calibration import Calibration
from pruning_core.compensation.batchnorm import recalibrate
from pruning_core.compensation.least_squares import fold
from pruning_core.compensation.refit import refit
from pruning_core.compensation.report import Repair, constant_inputs
from pruning_core.draft import Draft
from pruning_core.observe.calls import layer_calls
from pruning_core.observe.gram import MAX_INPUTS
from pruning_core.spec import PruningSpec
from pruning_core.study import Subject
from pruning_core.trace import real_twin

__all__ = ["Repair", "compensate", "constant_inputs", "left_as_cut"]


def compensate(
    subject: Subject,
    pruned: nn.Module,
    draft: Draft,
    calibration: Calibration,
    spec: PruningSpec,
    on_compensated: Callable[[nn.Module], None] | None = None,
) -> tuple[Repair, ...]:
    """Mend the weights of `pruned` in place as the spec says; the flags of its training mode stay as they are.

    `on_compensated` is shown the model before its BatchNorm statistics are taken anew, where both are asked for.
    """
    training = {name: module.training for name, module in pruned.named_modules()}
    pruned.eval()
    original = real_twin(subject.model).eval()
    repairs: tuple[Repair, ...] = ()
    if draft.slices and spec.compensation == "sequential":
        repairs = refit(original, pruned, draft.prediction, draft.rescales, calibration, spec.seed)
    elif draft.slices and spec.compensation == "least_squares":
        repairs = fold(original, pruned, draft.prediction, calibration, spec.seed)
    if spec.recalibrate_bn:
        if repairs and on_compensated is not None:
            on_compensated(pruned)
        recalibrate(pruned, calibration, subject.trace.writes)
    for name, module in pruned.named_modules():
        module.training = training[name]
    return repairs


def left_as_cut(draft: Draft, spec: PruningSpec, repairs: tuple[Repair, ...]) -> list[str]:
    """A note on the layers that read fewer channels than before and were not mended."""
    if spec.compensation == "none":
        return []
    prediction, mended = draft.prediction, {repair.layer for repair in repairs}
    names = {
        call.weight: None
        for call in layer_calls(prediction.analysis.trace)
        if call.weight not in mended and prediction.shape(call.input) != call.input.shape
    }
    wide = f"it has over {MAX_INPUTS} inputs, " if spec.compensation == "least_squares" else ""
    why = f"several calls or other code read the weight, {wide}or there was too little data"
    return [f"not compensated: {', '.join(names)} ({why})"] if names else []
