"""The proof behind a folded constant: what scaling some rows of parameters does to every value of the run.

Scaling by f multiplies each entry of each value by f to some power, its degree: 0 where nothing changes, 1 where the
entry scales along. Calls that are linear in what scales hand degrees on; any other call that meets a scaled entry ends
the proof. It holds if all that reaches the reader scales along, and nothing else does after it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pruning_core.trace import Op, Trace, Value

_MOVED = (
    "view reshape _unsafe_view permute transpose t unsqueeze squeeze slice select unbind split chunk flatten unflatten"
    " contiguous clone movedim expand split_with_sizes narrow to dropout flip _to_copy repeat_interleave swapaxes"
    " neg real repeat tile type_as"
)
MOVES = frozenset(f"aten.{name}" for name in _MOVED.split())
SUMS, JOINS = frozenset({"aten.add", "aten.sub"}), frozenset({"aten.cat", "aten.stack"})
_SHAPED = "new_zeros new_ones new_empty new_full zeros_like ones_like full_like empty_like"
SHAPED = frozenset(f"aten.{name}" for name in _SHAPED.split())  # these read a shape and no values
LAYERS = frozenset({"aten.linear", "aten.conv1d", "aten.conv2d"})  # arguments: input, weight, bias
PRODUCTS = frozenset({"aten.matmul", "aten.bmm", "aten.mm"})


def only_scales(trace: Trace, rows: Mapping[str, frozenset[int]], reader: Op, operand: Value) -> bool:
    """Whether scaling `rows` (parameter -> positions of its first axis) scales `operand` of `reader`, and nothing else."""
    degrees = {trace.tensors[name].index: _rows(trace.tensors[name].shape, picked) for name, picked in rows.items()}
    reached = False
    for op in trace.ops:
        touched = [value for value in op.inputs() if value.index in degrees]
        if not touched:
            continue
        if op is reader:
            reached = len(touched) == 1 and touched[0] is operand and bool(degrees[operand.index].all())
            if not reached:
                return False
            continue
        if op.name in MOVES and [value.index for value in op.outputs()] == [touched[0].index]:
            continue  # a dropout that gives back what it was given
        found = _through(op, degrees)
        if found is None:
            return False
        for value, degree in zip(op.outputs(), found, strict=True):
            if value.index in degrees:  # written in place
                return False
            if bool(degree.any()):
                degrees[value.index] = degree
    return reached and not any(value.index in degrees for value in trace.outputs)


def _rows(shape: tuple[int, ...], picked: frozenset[int]) -> Tensor:
    degree = torch.zeros(shape[:1], dtype=torch.int8)
    degree[sorted(picked)] = 1
    return degree.view(-1, *[1] * (len(shape) - 1)).expand(shape)


def _through(op: Op, degrees: Mapping[int, Tensor]) -> list[Tensor] | None:
    """The degrees of a call's outputs, or None where they are no longer known."""

    def of(value: Any) -> Tensor:
        if not isinstance(value, Value):
            return torch.zeros((), dtype=torch.int8)
        return degrees.get(value.index, torch.zeros((), dtype=torch.int8).expand(value.shape))

    if op.name in MOVES:
        return replay(op, of(op.args[0]))
    if op.name in JOINS:
        return [op.func([of(part) for part in op.args[0]], *op.args[1:])]
    out = op.outputs()[0].shape
    if op.name in SHAPED:
        return [torch.zeros((), dtype=torch.int8).expand(out)]
    if op.name in SUMS and isinstance(op.args[1], Value):
        a, b = (of(arg).expand(out) for arg in op.args[:2])
        return [a] if torch.equal(a, b) else None
    if op.name == "aten.mul":
        product = of(op.args[0]) + of(op.args[1])
        return [product.expand(out)] if int(product.max()) <= 1 else None
    if op.name == "aten.div" and not op.kwargs:
        return None if bool(of(op.args[1]).any()) else [of(op.args[0]).expand(out)]
    if op.name in PRODUCTS:
        total = of(op.args[0]).amin() + of(op.args[1]).amin()
        even = all(bool((of(arg) == of(arg).amin()).all()) for arg in op.args[:2])
        return [total.expand(out)] if even and int(total) == 1 else None
    return _layer(op, of) if op.name in LAYERS else None


def _layer(op: Op, of: Any) -> list[Tensor] | None:
    """A layer whose rows, weights and bias, are scaled; what it reads is not."""
    x, weight, bias = op.args[0], op.args[1], op.args[2] if len(op.args) > 2 else None
    by_row = of(weight).reshape(weight.shape[0], -1)
    row = by_row[:, 0]
    if bool(of(x).any()) or bool((by_row != row[:, None]).any()) or (bias is not None and not torch.equal(of(bias), row)):
        return None
    out = op.outputs()[0].shape
    return [(row if op.name == "aten.linear" else row.view(-1, *[1] * (len(weight.shape) - 2))).expand(out)]


def replay(op: Op, labels: Tensor) -> list[Tensor]:
    """What a call that only moves entries makes of labels on them."""
    if op.name in {"aten.to", "aten._to_copy", "aten.dropout", "aten.neg", "aten.real", "aten.type_as"}:
        return [labels]
    keywords = {k: v for k, v in op.kwargs.items() if k not in {"memory_format", "device", "dtype"}}
    moved = op.func(labels.contiguous(), *(list(a) if isinstance(a, tuple) else a for a in op.args[1:]), **keywords)
    return list(moved) if isinstance(moved, list | tuple) else [moved]
