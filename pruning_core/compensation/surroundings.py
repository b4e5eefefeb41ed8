"""What lies behind a layer: BatchNorm, an addition with another branch, a ReLU. The refit aims at what comes out there.

Where a layer's output is added to another branch, the layer can also mend what that branch has lost: it is then asked
for what is missing in the sum, not for what the original layer answered.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.observe.calls import LayerCall
from pruning_core.trace import Op, Trace, Value
from pruning_core.writes import does_write


@dataclass(frozen=True, slots=True, eq=False)
class Surroundings:
    """layer -> (norm) -> (addition with `other`) -> (ReLU), each where there is one."""

    norm: Op | None
    addition: Op | None
    other_made_by: int  # the call that makes the other branch; it runs before the layer
    relu: bool

    def answer(self, call: LayerCall) -> Op:
        """The call of the original whose result says what is wanted."""
        return self.addition or call.op


def surroundings(call: LayerCall, trace: Trace, readers: dict[int, list[Op]]) -> Surroundings:
    """What can be used of what lies behind the layer. `readers`: value -> calls that read it, in order."""
    tensors = {v.index for v in trace.tensors.values()}
    returned = {v.index for v in trace.outputs}

    def step(value: Value, after: int) -> Op | None:
        """The only call that reads a value; with in-place calls, which make it another value, the first one."""
        if value.index in returned:
            return None
        later = [op for op in readers.get(value.index, ()) if op.index > after]
        in_place = bool(later) and any(v.index == value.index for v in later[0].outputs())
        return later[0] if len(later) == 1 or in_place else None

    norm, value, at = None, call.output, call.op.index
    behind = step(value, at)
    if behind is not None and _is_frozen_norm(behind, value, tensors):
        norm, value, at = behind, behind.outputs()[0], behind.index
        behind = step(value, at)
    addition, made_by = None, -1
    if behind is not None and behind.name in {"aten.add", "aten.add_"} and not behind.kwargs and len(behind.args) == 2:
        made_by = _made_by(behind, value, trace, call.op.index)
        if made_by >= 0:
            addition, value, at = behind, behind.outputs()[0], behind.index
            behind = next((op for op in readers.get(value.index, ()) if op.index > at), None)
            if behind is None or not all(op.name == behind.name for op in readers[value.index] if op.index > at):
                behind = behind if behind is not None and behind.name == "aten.relu_" else None
    relu = behind is not None and behind.name in {"aten.relu", "aten.relu_"}
    return Surroundings(norm, addition, made_by, relu)


def mean_behind(
    call: LayerCall, behind: Surroundings, named: dict[str, Tensor], names: dict[int, str], readers: dict[int, list[Op]]
) -> Tensor | None:
    """The mean of the BatchNorm that takes a constant for a layer without a bias; None where it serves others too.

    `named`: the pruned model's tensors; `names`: of the trace's, by index.
    """
    if call.bias is not None or behind.norm is None or not isinstance(behind.norm.args[3], Value):
        return None
    statistic = behind.norm.args[3].index
    return named[names[statistic]] if len(readers[statistic]) == 1 else None


def readers_of(trace: Trace) -> dict[int, list[Op]]:
    """Value -> the calls that read it, in order."""
    found: dict[int, list[Op]] = {}
    for op in trace.ops:
        for value in op.inputs():
            found.setdefault(value.index, []).append(op)
    return found


def _is_frozen_norm(op: Op, value: Value, tensors: set[int]) -> bool:
    """A BatchNorm in evaluation mode whose statistics are the model's."""
    return (
        op.name == "aten.batch_norm"
        and op.args[0].index == value.index
        and all(isinstance(a, Value) and a.index in tensors for a in op.args[3:5])
        and not op.args[5]
    )


def _made_by(addition: Op, value: Value, trace: Trace, before: int) -> int:
    """The call that makes the other summand, if it runs before the layer and stays as it is; -1 where there is none."""
    left, right = addition.args
    if any(does_write(op.func) for op in trace.ops[before + 1 : addition.index]):
        return -1
    if not (isinstance(left, Value) and isinstance(right, Value)) or left.index == right.index or left.shape != right.shape:
        return -1
    other = right if left.index == value.index else left
    makers = (op.index for op in reversed(trace.ops[:before]) if any(v.index == other.index for v in op.outputs()))
    return next(makers, -1)


SMALL = 0.01  # of the largest |gamma|: a channel that is scaled with less is not asked to mend what others have lost


@dataclass(frozen=True, slots=True, eq=False)
class Affine:
    """z = slope * y + shift per channel: a BatchNorm with frozen statistics, or nothing at all.

    `weak`: channels of a summand that it all but removes. No weights would make the sum right through them; they keep
    their answers, with slope 1 and shift 0.
    """

    slope: Tensor  # [O]
    shift: Tensor  # [O]
    weak: Tensor  # [O]

    @classmethod
    def of(cls, norm: Op | None, named: dict[str, Tensor], names: dict[int, str], channels: int, *, summand: bool) -> Affine:
        if norm is None:
            return cls(torch.ones(channels), torch.zeros(channels), torch.zeros(channels, dtype=torch.bool))
        gamma, beta, mean, var = (
            named[names[a.index]].detach().float().cpu() if isinstance(a, Value) else None for a in norm.args[1:5]
        )
        assert mean is not None
        assert var is not None
        gamma = torch.ones(channels) if gamma is None else gamma
        weak = (gamma.abs() <= SMALL * gamma.abs().max().clamp_min(1e-30)) & summand
        slope = torch.rsqrt(var + norm.args[7]) * torch.where(gamma.abs() < 1e-6, 1e-6, gamma)
        shift = (0 if beta is None else beta) - mean * slope
        return cls(slope.where(~weak, 1.0), shift.where(~weak, 0.0), weak)
