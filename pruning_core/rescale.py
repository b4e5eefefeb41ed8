"""Fold a constant that changed with a size back into a weight, so that the function is kept.

An attention that divides by the square root of its head size computes another constant once the head is smaller. The
value it multiplies is followed back, through calls that only move entries or scale them, to the layers that made it,
and their weights and biases are multiplied by old / new. Only rows that no other call reads are scaled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from pruning_core.calls import ATTENTION, constant_drift
from pruning_core.plan import Rescale
from pruning_core.prediction import Prediction
from pruning_core.trace import Op, Trace, Value
from pruning_core.verify import Mismatch

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
_Path = Sequence[tuple[Op, Value]]  # moves, each with the output that is followed
_LINEAR = {"aten.linear": (0, 1, 2), "aten.conv1d": (0, 1, 2), "aten.conv2d": (0, 1, 2)}  # input, weight, bias


_FILLS = {"aten.full", "aten.new_full", "aten.full_like", "aten.scalar_tensor"}
_FIRST_FACTOR = {"aten.matmul", "aten.bmm", "aten.mm"}  # scaling the first operand scales the result


def rescale_proposals(prediction: Prediction, retraced: Trace, mismatch: Mismatch) -> Iterator[list[Rescale]]:
    """Ways to undo changed constants: those of all calls of this kind at once first, then of this call alone."""
    trace = prediction.analysis.trace
    folder = _Folder(trace)
    mine = list(folder.ways(mismatch.op, mismatch.factor))
    everywhere: list[Rescale] = []
    for op, new in zip(trace.ops[mismatch.op :], retraced.ops[mismatch.op :], strict=False):
        if op.func is trace.ops[mismatch.op].func and op.func is new.func:
            drift = constant_drift(op, new)
            if drift is not None:
                everywhere += next(folder.ways(op.index, drift), [])
    if mine and len(everywhere) > len(mine[0]):
        yield everywhere
    yield from mine


class _Folder:
    """Follows values of one trace back to the layer that makes them, and forward to every call that reads them."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace
        self.names = {value.index: name for name, value in trace.tensors.items()}
        self.producers = {value.index: op for op in trace.ops for value in op.outputs()}
        self.readers: dict[int, list[Op]] = {}
        for op in trace.ops:
            for value in op.inputs():
                self.readers.setdefault(value.index, []).append(op)
        self.returned = {value.index for value in trace.outputs}

    def ways(self, call: int, change: float) -> Iterator[list[Rescale]]:
        """Ways to undo one changed constant (new / old = `change`), each a set of rescaled parameter entries."""
        op = self.trace.ops[call]
        if not np.isfinite(change) or change <= 0:
            return
        if op.name in _FILLS:  # the constant was put into a tensor first: look at the one call that uses it
            made = op.outputs()[0].index
            readers = self.readers.get(made, [])
            if len(readers) != 1 or made in self.returned or [v.index for v in readers[0].inputs()].index(made) == 0:
                return
            op = readers[0]
        factor = change if op.name == "aten.div" else 1 / change
        attention = op.name == ATTENTION
        if not attention and op.name not in {"aten.mul", "aten.div"}:
            return
        for value in op.args[: 2 if attention else 1]:
            if isinstance(value, Value):
                found = self._back(value, (), op)
                if found:
                    yield [Rescale(tensor=t, axis=0, positions=rows, factor=factor, call=call) for t, rows in found]

    def _back(self, value: Value, path: _Path, reader: Op) -> list[tuple[str, tuple[int, ...]]] | None:
        """The parameter rows behind a value that `reader` reads after the moves of `path`; None where there is no way."""
        op = self.producers.get(value.index)
        if op is None or not op.args or not isinstance(op.args[0], Value):
            return None
        if op.name in _MOVES:
            return self._back(op.args[0], ((op, value), *path), reader)
        if op.name in _FIRST_FACTOR:  # scaling the first factor scales the product, if that goes nowhere else
            whole = torch.zeros((), dtype=torch.long).expand(value.shape)
            return self._back(op.args[0], (), op) if self._goes_only_to(value, whole, {0}, reader) else None
        return self._rows(op, value, path, reader) if op.name in _LINEAR else None

    def _rows(self, op: Op, value: Value, path: _Path, reader: Op) -> list[tuple[str, tuple[int, ...]]] | None:
        """Which output channels of a layer reach the reader: label them, and replay the moves on the labels."""
        _, w, b = _LINEAR[op.name]
        weights = [arg for arg in (op.args[w], op.args[b] if len(op.args) > b else None) if arg is not None]
        labels = _labels(value.shape, len(value.shape) - 1 if op.name == "aten.linear" else 1)
        reached = set(torch.unique(_replay(labels, path)).tolist())
        if not self._goes_only_to(value, labels, reached, reader):
            return None
        found: list[tuple[str, tuple[int, ...]]] = []
        for weight in weights:
            source = self._parameter(weight)
            if source is None:
                return None
            parameter, rows_of = source
            rows = {int(rows_of[k]) for k in reached}
            if not self._goes_only_to(parameter, _labels(parameter.shape, 0), rows, op):
                return None
            found.append((self.names[parameter.index], tuple(sorted(rows))))
        return found

    def _parameter(self, weight: Value) -> tuple[Value, Any] | None:
        """The parameter that a weight is, or is a part of, and the parameter's row behind each row of the weight."""
        path: list[tuple[Op, Value]] = []
        source = weight
        while source.index not in self.names:
            op = self.producers.get(source.index)
            if op is None or op.name not in _MOVES or not isinstance(op.args[0], Value):
                return None
            path.insert(0, (op, source))
            source = op.args[0]
        rows = _replay(_labels(source.shape, 0), path)
        return source, rows.reshape(rows.shape[0], -1)[:, 0].tolist()

    def _goes_only_to(self, value: Value, labels: Any, wanted: set[int], reader: Op) -> bool:
        """Whether entries with these labels are read by `reader` alone, once, however they are moved on the way."""
        if value.index in self.returned and _meets(labels, wanted):
            return False
        for op in self.readers.get(value.index, ()):
            if op is reader:
                if sum(v.index == value.index for v in op.inputs()) > 1:
                    return False
            elif op.name in _MOVES and isinstance(op.args[0], Value) and op.args[0].index == value.index:
                for out in op.outputs():
                    if not self._goes_only_to(out, _replay(labels, ((op, out),)), wanted, reader):
                        return False
            elif _meets(labels, wanted):
                return False
        return True


def _labels(shape: tuple[int, ...], axis: int) -> Any:
    """Every entry labelled with its position on one axis."""
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return torch.arange(shape[axis]).view(view).expand(shape)


def _meets(labels: Any, wanted: set[int]) -> bool:
    return not wanted.isdisjoint(torch.unique(labels).tolist())


def _replay(labels: Any, path: _Path) -> Any:
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
