"""Least squares: express the removed channels by the kept ones, and fold that into the weights that read them.

B = G_RK (G_KK + ridge)^-1 with the Gram matrix G of a layer's input channels in the original network; the weights of a
kept channel take over their shares of the removed ones', the mean goes into the bias, or into the BatchNorm behind a
layer that has none. One pass, no gradients. Every
layer is mended for itself, so a layer's repair does not know what the layers before it still lack.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pruning_core.calibration import Calibration
from pruning_core.compensation.report import Repair
from pruning_core.compensation.surroundings import mean_behind, readers_of, surroundings
from pruning_core.criteria.elimination import RIDGE, repair, with_common_constant
from pruning_core.observe.calls import LayerCall, layer_calls
from pruning_core.observe.gram import Gram
from pruning_core.observe.moments import input_moments
from pruning_core.prediction import Prediction
from pruning_core.twin import named_tensors


def fold(
    original: nn.Module, pruned: nn.Module, prediction: Prediction, calibration: Calibration, seed: int = 0
) -> tuple[Repair, ...]:
    """Mend every weight of `pruned` that reads removed channels, in place."""
    trace = prediction.analysis.trace
    grams = input_moments(original, trace, calibration, calibration.count(), seed)
    before, after = named_tensors(original), named_tensors(pruned)
    names = {value.index: name for name, value in trace.tensors.items()}
    readers = readers_of(trace)
    found: list[Repair] = []
    for call in layer_calls(trace):
        axes = prediction.analysis.tensor_axes(call.weight)
        keeps = torch.from_numpy(np.array(prediction.keeps[axes[call.in_axis]]))
        if call.op.index not in grams or bool(keeps.all()) or not call.only:
            continue
        if call.groups > 1 and not _same_inputs(prediction, call):
            continue
        out = torch.tensor(prediction.kept(axes[call.out_axis]))
        rows = before[call.weight].detach().double().cpu().index_select(call.out_axis, out)  # where Grams are
        mean = mean_behind(call, surroundings(call, trace, readers), after, names, readers)
        bias = after[call.bias] if call.bias else mean
        scale = _rescaled(rows.index_select(call.in_axis, keeps.nonzero()[:, 0]), after[call.weight])
        constant = None if bias is None else _Constant(bias, -1 if bias is mean else 1)
        inputs = keeps.reshape(call.groups if call.kind == "transposed" else 1, -1)  # the same for all, or group by group
        keeps_GI = inputs.expand(call.groups, -1)
        found.append(_fold_one(call, rows, keeps_GI, grams[call.op.index], after[call.weight], constant, scale))
    return tuple(found)


@dataclass(frozen=True, slots=True, eq=False)
class _Constant:
    """What takes a constant: a bias, or with sign -1 the mean of the BatchNorm behind."""

    tensor: Tensor
    sign: int


def _same_inputs(prediction: Prediction, call: LayerCall) -> bool:
    """Whether a grouped convolution keeps all its groups: then each has its own outputs and the same inputs."""
    ids = prediction.analysis.axes[call.input.index][call.channel_axis]
    return bool(prediction.keeps[ids].reshape(call.groups, -1).any(axis=1).all())


def _rescaled(expected: Tensor, found: Tensor) -> float:
    """What the plan multiplied the weight with, to undo a constant."""
    energy = float(expected.square().sum())
    return float((expected * found.detach().double().cpu()).sum()) / energy if energy else 1.0


def _fold_one(
    call: LayerCall, rows: Tensor, keeps_GI: Tensor, gram: Gram, weight: Tensor, constant: _Constant | None, scale: float
) -> Repair:
    moment = gram.xx / gram.rows
    mended, constants, inputs = [], [], []
    before = after = energy = 0.0
    for g, (flat, keeps) in enumerate(zip(call.by_input(rows, call.groups), keeps_GI, strict=True)):  # flat [I, R]
        gone, kept = (~keeps).nonzero()[:, 0], keeps.nonzero()[:, 0]
        with_one = torch.cat([kept, torch.tensor([len(keeps)])]) if constant is not None else kept
        shares = repair(moment[g], gone, with_one, constant is not None)  # [gone, kept (+ 1)]
        moved = shares.T @ flat[gone]
        if constant is not None and call.share_of_kernel < 1:
            moved = with_common_constant(moved, moment[g], kept, math.prod(weight.shape[2:]))
        mended.append(flat[kept] + moved[: len(kept)])
        constants.append(moved[-1])
        inputs.append(_is_constant(moment[g])[kept])
        change = torch.zeros(len(keeps) + 1, flat.shape[1], dtype=torch.float64)
        change[gone] = -flat[gone]
        before += float((change * (moment[g] @ change)).sum())
        change[with_one] += moved
        after += float((change * (moment[g] @ change)).sum())
        energy += float((flat * (moment[g, :-1, :-1] @ flat)).sum())
    weight.data.copy_(call.from_input(torch.stack(mended), tuple(weight.shape)) * scale)
    if constant is not None:
        by_output = torch.cat(constants).reshape(len(constant.tensor), -1).sum(dim=1) * call.share_of_kernel
        constant.tensor.data += constant.sign * (by_output * scale).to(constant.tensor)
    energy = max(energy, 1e-30)
    return Repair(
        call.weight,
        gram.rows,
        RIDGE,
        before / energy,
        after / energy,
        sum(map(len, inputs)),
        int(torch.cat(inputs).sum()),
    )


def _is_constant(moment: Tensor) -> Tensor:
    """[I]: whose variance is nothing, as far as sums in single precision can tell."""
    squares = moment.diagonal()[:-1]
    found: Tensor = squares - moment[:-1, -1].square() <= 1e-6 * squares
    return found
