"""Where a layer's output is added to another branch: the layer can also mend what that branch has lost.

The regression's target is then not what the original layer answered, but what is missing for the sum to be the
original's: (sum of the original - other branch of the pruned network), taken back through the BatchNorm in between.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.observe.calls import LayerCall
from pruning_core.trace import Op, Trace, Value


@dataclass(frozen=True, slots=True, eq=False)
class Feedback:
    """call -> (BatchNorm) -> addition with `other`, which is known before the call runs."""

    norm: Op | None
    addition: Op
    other: Value
    made_by: int  # the call that makes `other`


def feedback_of(call: LayerCall, trace: Trace) -> Feedback | None:
    """The addition behind a layer, where there is exactly one and the other branch comes first."""
    norm, value = None, call.output
    step = _next_reader(trace, value, call.op.index)
    if step is not None and step.name == "aten.batch_norm" and step.args[0].index == value.index:
        names = {v.index for v in trace.tensors.values()}
        if not all(isinstance(a, Value) and a.index in names for a in step.args[3:5]) or step.args[5]:
            return None
        norm, value = step, step.outputs()[0]
        step = _next_reader(trace, value, norm.index)
    if step is None or step.name not in {"aten.add", "aten.add_"} or step.kwargs or len(step.args) != 2:
        return None
    left, right = step.args
    if not isinstance(left, Value) or not isinstance(right, Value) or left.index == right.index:
        return None
    other = right if left.index == value.index else left
    if left.shape != right.shape or step.outputs()[0].shape != left.shape:
        return None
    made_by = next((op.index for op in reversed(trace.ops[: call.op.index]) if other.index in _made(op)), None)
    return None if made_by is None else Feedback(norm, step, other, made_by)


def _made(op: Op) -> set[int]:
    return {value.index for value in op.outputs()}


def _next_reader(trace: Trace, value: Value, after: int) -> Op | None:
    """The only call that reads a value; with in-place calls, which make it another value, the first one."""
    if value.index in {v.index for v in trace.outputs}:
        return None
    readers = [op for op in trace.ops[after + 1 :] if any(v.index == value.index for v in op.inputs())]
    if not readers:
        return None
    in_place = value.index in _made(readers[0])
    return readers[0] if len(readers) == 1 or in_place else None


def undo_norm(y: Tensor, gamma: Tensor | None, beta: Tensor | None, mean: Tensor, var: Tensor, eps: float, axis: int) -> Tensor:
    """What a BatchNorm in evaluation mode must have been given to answer y."""
    shape = [1] * y.ndim
    shape[axis] = -1
    if beta is not None:
        y = y - beta.view(shape)
    slope = torch.rsqrt(var + eps)
    if gamma is not None:
        slope = slope * torch.where(gamma.abs() < 1e-6, 1e-6, gamma)
    return y / slope.view(shape) + mean.view(shape)
