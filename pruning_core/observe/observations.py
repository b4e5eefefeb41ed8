"""All that criteria need of a model besides its weights, from one or two passes over the data."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from pruning_core.calibration import Calibration
from pruning_core.criteria.table import WITH_DATA, WITH_LABELS, WORDS, Features
from pruning_core.errors import SpecError
from pruning_core.observe.features import Axis, observe_features
from pruning_core.observe.follow import gammas
from pruning_core.observe.gradients import observe_gradients
from pruning_core.study import Subject


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """What was seen. Features and gamma by (weight, output axis) of a layer; gradients by parameter."""

    features: Mapping[Axis, Features] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    squares: Mapping[str, Tensor] = field(default_factory=dict)
    gamma: Mapping[Axis, Tensor] = field(default_factory=dict)
    samples: int = 0


def observe(subject: Subject, calibration: Calibration | None, needs: Collection[str]) -> Observations:
    """Observe what `needs` names, e.g. the union of NEEDS of all criteria of a sweep.

    The data is read once for all statistics of feature maps, and once for all gradients. The caller's model is not
    changed. Raises: SpecError when data or labels are needed and missing; ModelError when the model cannot be run on it.
    """
    wanted = frozenset(needs)
    assert wanted <= frozenset(WORDS)
    features: dict[Axis, Features] = {}
    gradients: dict[str, Tensor] = {}
    squares: dict[str, Tensor] = {}
    samples = 0
    if wanted & WITH_DATA:
        data = _data(calibration, wanted)
        if wanted & {"features", "nuclear"}:
            features, samples = observe_features(subject, data, nuclear="nuclear" in wanted)
        if wanted & WITH_LABELS:
            mean, square, written = "gradients" in wanted, "squares" in wanted, subject.trace.writes.tensors
            found = observe_gradients(subject.model, data, mean=mean, square=square, written=written)
            gradients, squares, samples = found.mean, found.square, found.samples
    return Observations(features, gradients, squares, gamma_of(subject) if "gamma" in wanted else {}, samples)


def _data(calibration: Calibration | None, wanted: frozenset[str]) -> Calibration:
    labels = bool(wanted & WITH_LABELS)
    if calibration is None:
        kind = "labelled calibration data" if labels else "calibration data"
        raise SpecError(
            f"the criterion needs {kind} and none was given",
            "calibration",
            "pass calibration data, or use 'l2_norm', which looks at weights only",
        )
    if labels and not calibration.labelled:
        raise SpecError(
            "the criterion needs labels and the calibration data has none",
            "calibration",
            "pass Calibration(batches, labelled=True) with pairs of inputs and target, or use 'activation', "
            "which needs data without labels",
        )
    return calibration


def gamma_of(subject: Subject) -> dict[Axis, Tensor]:
    """(weight, output axis) -> |gamma| of the BatchNorm behind the layer, [C] outputs; the mean where calls have several."""
    found: dict[Axis, Tensor] = {}
    for key, names in gammas(subject.trace).items():
        scales = [subject.tensors[name].detach().float().abs() for name in names]
        if len({len(scale) for scale in scales}) == 1:  # else calls in different groups share the weight
            found[key] = torch.stack(scales).mean(dim=0)
    return found
