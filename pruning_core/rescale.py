"""Fold a constant that changed with a size back into a weight, so that the function is kept.

An attention that divides by the square root of its head size computes another constant once the head is smaller. The
value it multiplies is followed back, through calls that only move entries or scale them, to the layers that made it,
and their weights and biases are multiplied by old / new. Only rows that no other call reads are scaled.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch

from pruning_core.calls import ATTENTION, constant_drift
from pruning_core.degrees import JOINS, LAYERS, MOVES, PRODUCTS, SUMS, only_scales, replay
from pruning_core.plan import Rescale
from pruning_core.prediction import Prediction
from pruning_core.trace import Op, Trace, Value
from pruning_core.verify import Mismatch

_Path = Sequence[tuple[Op, Value]]  # moves, each with the output that is followed
_Rows = dict[str, frozenset[int]]  # parameter -> positions of its first axis
_FILLS = {"aten.full", "aten.new_full", "aten.full_like", "aten.scalar_tensor"}


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
        self.producers: dict[int, Op] = {}
        self.readers: dict[int, list[Op]] = {}
        for op in trace.ops:
            for value in op.inputs():
                self.readers.setdefault(value.index, []).append(op)
            for value in op.outputs():  # the first one: later ones write into it, or give back what they were given
                self.producers.setdefault(value.index, op)
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
                for layer, channels in itertools.islice(self._back(value), 4):
                    rows = self._layer_rows(layer, channels)
                    if rows and only_scales(self.trace, rows, op, value):
                        yield [
                            Rescale(tensor=name, axis=0, positions=tuple(sorted(picked)), factor=factor, call=call)
                            for name, picked in rows.items()
                        ]
                        break

    def _back(self, value: Value, path: _Path = ()) -> Iterator[tuple[Op, set[int]]]:
        """The layers behind a value and the output channels of theirs that it holds, as far as the moves show."""
        op = self.producers.get(value.index)
        if op is None or not op.args:
            return
        if op.name in LAYERS:
            labels = _labels(value.shape, len(value.shape) - 1 if op.name == "aten.linear" else 1)
            for step, result in path:
                labels = replay(step, labels)[[v.index for v in step.outputs()].index(result.index)]
            yield op, set(torch.unique(labels).tolist())
        elif op.name in MOVES:
            yield from self._back(op.args[0], ((op, value), *path))
        elif op.name in JOINS:  # which part it is in, and what was moved since, is lost: the proof sees to it
            for part in op.args[0]:
                yield from self._back(part)
        elif op.name in SUMS | PRODUCTS | {"aten.mul", "aten.div"} and isinstance(op.args[0], Value):
            same = op.args[0].shape == value.shape and op.name not in PRODUCTS
            yield from self._back(op.args[0], path if same else ())

    def _layer_rows(self, layer: Op, channels: set[int]) -> _Rows | None:
        """The parameter rows, of weight and bias, that make these output channels of a layer."""
        rows: _Rows = {}
        for weight in layer.args[1:3]:
            if weight is not None:
                part = self._rows(weight, channels)
                if part is None:
                    return None
                rows |= part
        return rows

    def _rows(self, value: Value, wanted: set[int]) -> _Rows | None:
        """The parameters that a weight or bias is made of, and the rows of theirs behind the wanted rows."""
        if value.index in self.names:
            return {self.names[value.index]: frozenset(wanted)}
        op = self.producers.get(value.index)
        if op is None or (op.name not in MOVES and op.name != "aten.cat"):
            return None
        found: _Rows = {}
        start = 0
        for part in op.args[0] if op.name == "aten.cat" else op.args[:1]:
            if op.name == "aten.cat":
                mine = {k - start for k in wanted if start <= k < start + part.shape[0]}
                start += part.shape[0]
            else:
                moved = replay(op, _labels(part.shape, 0))[[v.index for v in op.outputs()].index(value.index)]
                behind = moved.reshape(moved.shape[0], -1)[:, 0].tolist()
                mine = {behind[k] for k in wanted}
            rows = self._rows(part, mine) if mine else {}
            if rows is None:
                return None
            found |= rows
        return found


def _labels(shape: tuple[int, ...], axis: int) -> Any:
    """Every entry labelled with its position on one axis."""
    view = [1] * len(shape)
    view[axis] = shape[axis]
    return torch.arange(shape[axis]).view(view).expand(shape)
