"""The calls of a trace that are linear maps with a weight of the model: y = W x + b, whatever layer issued them.

Shape legend: N rows (sample and position), G groups, I input channels, O output channels, T kernel positions, all per
group; K = I * T.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pruning_core.trace import Op, Trace, Value

_CONV = {f"aten.conv{n}d": n for n in (1, 2, 3)}
_TRANSPOSED = {f"aten.conv_transpose{n}d": n for n in (1, 2, 3)}


@dataclass(frozen=True, slots=True, eq=False)
class LayerCall:
    """One call of a layer. `out_axis` and `in_axis` are axes of the weight."""

    op: Op
    weight: str
    bias: str | None
    out_axis: int
    in_axis: int
    only: bool  # no other call reads the weight or writes it

    @property
    def kind(self) -> str:
        name = self.op.name
        return "conv" if name in _CONV else "transposed" if name in _TRANSPOSED else "linear"

    @property
    def groups(self) -> int:
        return self._option("groups") if self.kind != "linear" else 1

    @property
    def input(self) -> Value:
        found: Value = self.input_of(self.op.args)
        return found

    @property
    def inputs(self) -> int:
        """Input channels that one output reads."""
        return self.input.shape[self.channel_axis] // self.groups

    def input_of(self, args: tuple[Any, ...]) -> Any:
        """The input among the call's arguments."""
        return args[1 if self.op.name == "aten.addmm" else 0]

    @property
    def output(self) -> Value:
        return self.op.outputs()[0]

    @property
    def channel_axis(self) -> int:
        """Of the output, and of the input; counted from the end."""
        return -1 if self.kind == "linear" else -1 - self._spatial

    @property
    def _spatial(self) -> int:
        return _CONV.get(self.op.name) or _TRANSPOSED[self.op.name]

    def _option(self, name: str) -> Any:
        names = _CONV_ARGS if self.kind == "conv" else _TRANSPOSED_ARGS
        if name in self.op.kwargs:
            return self.op.kwargs[name]
        at = 3 + names.index(name)
        return self.op.args[at] if at < len(self.op.args) else _DEFAULTS[name]

    def _sizes(self, name: str) -> tuple[int, ...]:
        given = self._option(name)
        found = (given,) if isinstance(given, int) else tuple(given)
        return found * self._spatial if len(found) == 1 else found

    def to_matrix(self, weight: Tensor, groups: int) -> Tensor:
        """The weight as [G, O, K]."""
        if self.kind == "linear":
            return (weight if self.out_axis == 0 else weight.T)[None]
        if self.kind == "conv":
            return weight.reshape(groups, weight.shape[0] // groups, -1)
        taps = weight.flip(tuple(range(2, weight.ndim))).reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
        return taps.transpose(1, 2).flatten(2)  # [G, O, I, T]

    def from_matrix(self, matrix: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The inverse of `to_matrix`."""
        if self.kind == "linear":
            return matrix[0] if self.out_axis == 0 else matrix[0].T
        if self.kind == "conv":
            return matrix.reshape(shape)
        groups, out = matrix.shape[:2]
        inner = matrix.reshape(groups, out, shape[0] // groups, *shape[2:]).transpose(1, 2)
        return inner.reshape(shape).flip(tuple(range(2, len(shape))))

    def by_input(self, weight: Tensor, groups: int) -> Tensor:
        """The weight as [G, I, R]: of each input, outputs and kernel positions flattened."""
        if self.kind == "linear":
            return (weight.T if self.out_axis == 0 else weight)[None]
        if self.kind == "transposed":
            return weight.reshape(groups, weight.shape[0] // groups, -1)
        return weight.reshape(groups, weight.shape[0] // groups, *weight.shape[1:]).transpose(1, 2).flatten(2)

    def from_input(self, by_input: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The inverse of `by_input`."""
        if self.kind == "linear":
            return by_input[0].T if self.out_axis == 0 else by_input[0]
        if self.kind == "transposed":
            return by_input.reshape(shape)
        groups = len(by_input)
        return by_input.reshape(groups, shape[1], shape[0] // groups, *shape[2:]).transpose(1, 2).reshape(shape)

    @property
    def share_of_kernel(self) -> float:
        """How much of its kernel one output position sees: of a transposed convolution of stride s, 1 / s per axis."""
        return 1 / math.prod(self._sizes("stride")) if self.kind == "transposed" else 1.0

    def positions(self, output_shape: tuple[int, ...]) -> tuple[int, ...]:
        """The axes of the output that count rows, without the channels."""
        shape = list(output_shape)
        del shape[self.channel_axis]
        return tuple(shape)

    def fits(self, x: Tensor, y: Tensor) -> bool:
        """Whether x [*positions, channels] and the output y belong together: a router may have sent them other samples."""
        lead = -1 if self.kind == "linear" else -1 - self._spatial
        return x.shape[:lead] == y.shape[:lead]

    def output_rows(self, y: Tensor, rows: Tensor) -> Tensor:
        """The output [*positions, channels] at some positions, numbered as they lie: [N, channels]."""
        last = y.movedim(self.channel_axis, -1)
        return last[torch.unravel_index(rows, last.shape[:-1])].reshape(len(rows), -1)

    def input_rows(self, x: Tensor, weight_shape: tuple[int, ...], groups: int, rows: Tensor) -> Tensor:
        """What the weight is multiplied with at some positions of the output: [G, N, K]."""
        if self.kind == "linear":
            return x.reshape(-1, x.shape[-1])[rows][None]
        n = self._spatial
        if x.ndim == n + 1:
            x = x[None]
        kernel, dilation = weight_shape[2:], self._sizes("dilation")
        stride = self._sizes("stride")
        if self.kind == "transposed":
            x = _stuffed(x, stride)
            pad = [
                (d * (k - 1) - p, d * (k - 1) - p + o)
                for d, k, p, o in zip(dilation, kernel, self._sizes("padding"), self._sizes("output_padding"), strict=True)
            ]
            stride = (1,) * n
        else:
            pad = _padding(self._option("padding"), kernel, dilation, n)
        x = F.pad(x, [side for pair in reversed(pad) for side in pair])
        sizes = [(s - d * (k - 1) - 1) // t + 1 for s, d, k, t in zip(x.shape[2:], dilation, kernel, stride, strict=True)]
        where = torch.unravel_index(rows, (x.shape[0], *sizes))
        x = x.contiguous()
        steps = x.stride()
        windows = x.as_strided(
            (x.shape[0], *sizes, x.shape[1], *kernel),
            (
                steps[0],
                *(s * t for s, t in zip(steps[2:], stride, strict=True)),
                steps[1],
                *(s * d for s, d in zip(steps[2:], dilation, strict=True)),
            ),
        )
        found = windows[where]  # [N, channels, *kernel]
        return found.reshape(len(rows), groups, -1).transpose(0, 1)


_CONV_ARGS = ("stride", "padding", "dilation", "groups")
_TRANSPOSED_ARGS = ("stride", "padding", "output_padding", "groups", "dilation")
_DEFAULTS = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}


def _padding(given: Any, kernel: tuple[int, ...], dilation: tuple[int, ...], n: int) -> list[tuple[int, int]]:
    if given == "valid":
        return [(0, 0)] * n
    if given == "same":
        total = [d * (k - 1) for d, k in zip(dilation, kernel, strict=True)]
        return [(t // 2, t - t // 2) for t in total]
    sides = (given,) * n if isinstance(given, int) else tuple(given) * (n if len(given) == 1 else 1)
    return [(p, p) for p in sides]


def _stuffed(x: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Zeros between the entries of each spatial axis: a transposed convolution is a plain one of this."""
    sizes = [(s - 1) * t + 1 for s, t in zip(x.shape[2:], stride, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *sizes)
    wide[(slice(None), slice(None), *(slice(None, None, t) for t in stride))] = x
    return wide


def layer_calls(trace: Trace) -> list[LayerCall]:
    """Every call of the trace whose weight is a tensor of the model, in order."""
    names = {value.index: name for name, value in trace.tensors.items()}
    reads: dict[int, int] = {}
    for op in trace.ops:
        for value in op.inputs():
            reads[value.index] = reads.get(value.index, 0) + 1
    found: list[LayerCall] = []
    for op in trace.ops:
        form = _form(op)
        if form is None or form[0].index not in names or (form[1] is not None and form[1].index not in names):
            continue
        weight, bias, out_axis, in_axis = form
        only = reads[weight.index] == 1 and (bias is None or reads[bias.index] == 1)
        mine = names[weight.index], names[bias.index] if bias else None
        only = only and trace.writes.tensors.isdisjoint(mine)
        found.append(LayerCall(op, *mine, out_axis, in_axis, only))
    return found


def _form(op: Op) -> tuple[Value, Value | None, int, int] | None:
    """(weight, bias, output axis, input axis) of a call that has that form."""
    args = op.args
    if op.name == "aten.linear" and len(args[1].shape) == 2:
        return args[1], args[2] if len(args) > 2 else op.kwargs.get("bias"), 0, 1
    if op.name in _CONV or op.name in _TRANSPOSED:
        out_axis, in_axis = (0, 1) if op.name in _CONV else (1, 0)
        return args[1], args[2] if len(args) > 2 else op.kwargs.get("bias"), out_axis, in_axis
    if op.name in {"aten.mm", "aten.matmul"} and isinstance(args[1], Value) and len(args[1].shape) == 2:
        return args[1], None, 1, 0
    if op.name == "aten.addmm" and len(args) == 3 and not op.kwargs and len(args[0].shape) == 1:
        return args[2], args[0], 1, 0
    return None
