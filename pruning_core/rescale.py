"""Fold a constant that changed with a size back into a weight, so that the function is kept.

An attention that divides by the square root of its head size computes another constant once the head is smaller. The
value it multiplies is followed back, through calls that only move entries or scale them, to the layers that made it,
and their weights and biases are multiplied by old / new.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from pruning_core.plan import Rescale
from pruning_core.trace import Op, Trace, Value
from pruning_core.verify import Mismatch, Prediction, constant_drift

_MOVES = {
    f"aten.{name}"
    for name in [
        "view",
        "reshape",
        "_unsafe_view",
        "permute",
        "transpose",
        "t",
        "unsqueeze",
        "squeeze",
        "slice",
        "select",
        "unbind",
        "split",
        "chunk",
        "flatten",
        "unflatten",
        "contiguous",
        "clone",
        "movedim",
        "expand",
        "split_with_sizes",
        "narrow",
        "to",
        "dropout",
        "flip",
        "_to_copy",
        "repeat_interleave",
    ]
}
_LINEAR = {"aten.linear": (0, 1, 2), "aten.conv1d": (0, 1, 2), "aten.conv2d": (0, 1, 2)}  # input, weight, bias


_FILLS = {"aten.full", "aten.new_full", "aten.full_like", "aten.scalar_tensor"}
_FIRST_FACTOR = {"aten.matmul", "aten.bmm", "aten.mm"}  # scaling the first operand scales the result


def rescale_proposals(prediction: Prediction, retraced: Trace, mismatch: Mismatch) -> Iterator[list[Rescale]]:
    """Ways to undo changed constants: those of all calls of this kind at once first, then of this call alone."""
    trace = prediction.analysis.trace
    producers = {value.index: op for op in trace.ops for value in op.outputs()}
    mine = list(_ways(trace, producers, mismatch.op, mismatch.factor))
    everywhere: list[Rescale] = []
    for op, new in zip(trace.ops[mismatch.op :], retraced.ops[mismatch.op :], strict=False):
        if op.func is trace.ops[mismatch.op].func and op.func is new.func:
            drift = constant_drift(op, new)
            if drift is not None:
                everywhere += next(_ways(trace, producers, op.index, drift), [])
    if mine and len(everywhere) > len(mine[0]):
        yield everywhere
    yield from mine


def _ways(trace: Trace, producers: dict[int, Op], call: int, change: float) -> Iterator[list[Rescale]]:
    """Ways to undo one changed constant (new / old = `change`), each a set of rescaled parameter entries."""
    op = trace.ops[call]
    if op.name in _FILLS:  # the constant was put into a tensor first: look at the call that uses it
        made = op.outputs()[0].index
        op = next((o for o in trace.ops if any(v.index == made for v in o.inputs())), op)
        if op.args and isinstance(op.args[0], Value) and op.args[0].index == made:
            return
    factor = change if op.name == "aten.div" else 1 / change
    attention = op.name == "aten.scaled_dot_product_attention"
    if not np.isfinite(factor) or factor <= 0 or not (attention or op.name in {"aten.mul", "aten.div"}):
        return
    for value in op.args[: 2 if attention else 1]:
        if isinstance(value, Value):
            found = _walk(trace, producers, value, (), factor, call)
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
        return _fold(trace, producers, op, value, path, factor, call)
    return None


def _fold(
    trace: Trace,
    producers: dict[int, Op],
    op: Op,
    value: Value,
    path: tuple[tuple[Op, Value], ...],
    factor: float,
    call: int,
) -> list[Rescale] | None:
    """Which output channels of the layer reach the value: label them, and replay the moves on the labels."""
    _, w, b = _LINEAR[op.name]
    weights = [arg for arg in (op.args[w], op.args[b] if len(op.args) > b else None) if arg is not None]
    sources = [_parameter_rows(trace, producers, weight) for weight in weights]
    if any(source is None for source in sources):
        return None
    out = value.shape
    axis = len(out) - 1 if op.name == "aten.linear" else 1
    shape = [1] * len(out)
    shape[axis] = out[axis]
    labels: Any = torch.arange(out[axis]).view(shape).expand(out)
    labels = _replay(labels, path)
    reached = torch.unique(labels)
    return [
        Rescale(
            tensor=source[0],
            axis=0,
            positions=tuple(sorted(set(source[1][reached].tolist()))),
            factor=factor,
            call=call,
        )
        for source in sources
        if source is not None
    ]


def _parameter_rows(trace: Trace, producers: dict[int, Op], weight: Value) -> tuple[str, torch.Tensor] | None:
    """The parameter that a weight is, or is a part of, and the parameter's row behind each row of the weight."""
    names = {v.index: name for name, v in trace.tensors.items()}
    path: list[tuple[Op, Value]] = []
    source = weight
    while source.index not in names:
        op = producers.get(source.index)
        if op is None or op.name not in _MOVES or not isinstance(op.args[0], Value):
            return None
        path.insert(0, (op, source))
        source = op.args[0]
    rows: Any = torch.arange(source.shape[0]).view(-1, *[1] * (len(source.shape) - 1)).expand(source.shape)
    rows = _replay(rows, path)
    return names[source.index], rows.reshape(rows.shape[0], -1)[:, 0]


def _replay(labels: Any, path: Sequence[tuple[Op, Value]]) -> Any:
    for step, result in path:
        moved = step.func(labels.contiguous(), *_plain(step.args[1:]), **_no_format(step.kwargs))
        if isinstance(moved, list | tuple):
            moved = moved[[v.index for v in step.outputs()].index(result.index)]
        labels = moved
    return labels


def _plain(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(list(a) if isinstance(a, tuple) else a for a in args)


def _no_format(kwargs: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in kwargs.items() if k not in {"memory_format", "device", "dtype"}}
