"""Fold a constant that changed with a size back into a weight, so that the function is kept.

An attention that divides by the square root of its head size computes another constant once the head is smaller. The
value it multiplies is followed back, through calls that only move entries or scale them, to the layers that made it,
and their weights and biases are multiplied by old / new.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from pruning_core.plan import Rescale
from pruning_core.trace import Op, Trace, Value
from pruning_core.verify import Mismatch, Prediction

_MOVES = {
    f"aten.{name}"
    for name in (
        "view reshape _unsafe_view permute transpose t unsqueeze squeeze slice select unbind split chunk flatten unflatten"
        " contiguous clone movedim expand split_with_sizes narrow to dropout flip _to_copy repeat_interleave"
    ).split()
}
_LINEAR = {"aten.linear": (0, 1, 2), "aten.conv1d": (0, 1, 2), "aten.conv2d": (0, 1, 2)}  # input, weight, bias


_FILLS = {"aten.full", "aten.new_full", "aten.full_like", "aten.scalar_tensor"}
_FIRST_FACTOR = {"aten.matmul", "aten.bmm", "aten.mm"}  # scaling the first operand scales the result


def rescale_for(prediction: Prediction, mismatch: Mismatch) -> Iterator[list[Rescale]]:
    """Ways to undo the change of the constant at this call, each a set of rescaled parameter entries."""
    trace = prediction.analysis.trace
    op = trace.ops[mismatch.op]
    if op.name in _FILLS:  # the constant was put into a tensor first: look at the call that uses it
        made = op.outputs()[0].index
        op = next((o for o in trace.ops if any(v.index == made for v in o.inputs())), op)
        if op.name == "aten.mul" and isinstance(op.args[0], Value) and op.args[0].index == made:
            return
    factor = mismatch.factor if op.name == "aten.div" else 1 / mismatch.factor
    if not np.isfinite(factor) or factor <= 0:
        return
    attention = op.name == "aten.scaled_dot_product_attention"
    if not attention and op.name not in {"aten.mul", "aten.div"}:
        return
    producers = {value.index: o for o in trace.ops for value in o.outputs()}
    for value in op.args[: 2 if attention else 1]:
        if isinstance(value, Value):
            found = _walk(trace, producers, value, (), factor, mismatch.op)
            if found:
                yield found


def _walk(
    trace: Trace, producers: dict[int, Op], value: Value, path: tuple[tuple[Op, Value], ...], factor: float, call: int
) -> list[Rescale] | None:
    """Back from a value to the one layer whose output it is made of; None where the way is not one of moves only."""
    op = producers.get(value.index)
    if op is None or not op.args or not isinstance(op.args[0], Value):
        return None
    if op.name in _MOVES:
        return _walk(trace, producers, op.args[0], ((op, value), *path), factor, call)
    if op.name in _FIRST_FACTOR:
        return _walk(trace, producers, op.args[0], (), factor, call)
    if op.name in _LINEAR:
        return _fold(trace, op, value, path, factor, call)
    return None


def _fold(
    trace: Trace, op: Op, value: Value, path: tuple[tuple[Op, Value], ...], factor: float, call: int
) -> list[Rescale] | None:
    """Which output channels of the layer reach the value: label them, and replay the moves on the labels."""
    names = {v.index: name for name, v in trace.tensors.items()}
    _, w, b = _LINEAR[op.name]
    weight, bias = op.args[w], op.args[b] if len(op.args) > b else None
    if weight.index not in names or (bias is not None and bias.index not in names):
        return None
    out = value.shape
    axis = len(out) - 1 if op.name == "aten.linear" else 1
    shape = [1] * len(out)
    shape[axis] = out[axis]
    labels: Any = torch.arange(out[axis]).view(shape).expand(out)
    for step, result in path:
        moved = step.func(labels, *_plain(step.args[1:]), **_no_format(step.kwargs))
        if isinstance(moved, list | tuple):
            moved = moved[[v.index for v in step.outputs()].index(result.index)]
        labels = moved
    positions = tuple(sorted({int(x) for x in labels.unique()}))
    tensors = [weight] if bias is None else [weight, bias]
    return [Rescale(tensor=names[t.index], axis=0, positions=positions, factor=factor, call=call) for t in tensors]


def _plain(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(list(a) if isinstance(a, tuple) else a for a in args)


def _no_format(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k not in {"memory_format", "device", "dtype"}}
