"""What a forward costs, by call: multiply-accumulates, parameters, memory. MACs are counted once per multiply-add pair."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod

from torch import nn

from pruning_core.inputs import ExampleInputs
from pruning_core.modes import in_default_modes
from pruning_core.study import study
from pruning_core.trace import Op, Trace, Value
from pruning_core.twin import named_tensors
from pruning_core.writes import does_write, is_view


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one forward at the example inputs, their batch included.

    params and buffers count entries; size_bytes is what they take in their own dtypes; peak_activation_bytes is the
    largest sum of tensors alive at once when each is freed after its last use.
    """

    params: int
    buffers: int
    macs: int
    size_bytes: int
    peak_activation_bytes: int


@in_default_modes
def cost(model: nn.Module, example_inputs: object) -> Cost:
    """Raises: ModelError when the model cannot be run on the example inputs."""
    return cost_of(model, study(model, ExampleInputs.of(example_inputs)).trace)


def cost_of(model: nn.Module, trace: Trace) -> Cost:
    parameters = {id(p) for p in model.parameters()}
    tensors = list(named_tensors(model).values())
    return Cost(
        params=sum(t.numel() for t in tensors if id(t) in parameters),
        buffers=sum(t.numel() for t in tensors if id(t) not in parameters),
        macs=sum(op_macs(op) for op in trace.ops),
        size_bytes=sum(t.numel() * t.element_size() for t in tensors),
        peak_activation_bytes=_peak(trace),
    )


def op_macs(op: Op, shape: Callable[[Value], tuple[int, ...]] = lambda value: value.shape) -> int:
    """Multiply-accumulates of one call; only contractions count. `shape` may give other shapes than the traced ones."""
    shapes = [shape(v) for v in op.inputs()]
    outs = op.outputs()
    if not outs:
        return 0
    out = prod(shape(outs[0]))
    name = op.name.removeprefix("aten.")
    if name.startswith("conv_transpose") or (name in {"convolution", "_convolution"} and op.args[6]):
        return prod(shapes[0]) * prod(shapes[1][1:])
    if name.startswith("conv"):
        return out * prod(shapes[1][1:])
    if name == "linear":
        return out * shapes[1][-1]
    if name in {"matmul", "mm", "bmm", "mv", "dot"}:
        return out * shapes[0][-1]
    if name in {"addmm", "baddbmm", "addbmm"}:
        return out * shapes[1][-1]
    if name == "scaled_dot_product_attention":
        q, k, v = shapes[:3]
        return prod(q[:-1]) * k[-2] * (q[-1] + v[-1])
    if name == "einsum":
        return _einsum_macs(str(op.args[0]), shapes)
    if name in {"lstm", "gru", "rnn_tanh", "rnn_relu"}:
        steps = prod(shapes[0][:-1])
        return sum(steps * prod(shape) for shape in shapes[1:] if len(shape) == 2)
    return 0


def _einsum_macs(equation: str, shapes: Sequence[tuple[int, ...]]) -> int:
    sizes: dict[str, int] = {}
    dots = 1
    for term, shape in zip(equation.replace(" ", "").partition("->")[0].split(","), shapes, strict=True):
        head, ellipsis, tail = term.partition("...")
        for letter, n in zip(head, shape, strict=False):
            sizes[letter] = max(n, sizes.get(letter, 1))
        for letter, n in zip(reversed(tail), reversed(shape), strict=False):
            sizes[letter] = max(n, sizes.get(letter, 1))
        if ellipsis:
            dots = max(dots, prod(shape[len(head) : len(shape) - len(tail)]))
    return prod(sizes.values()) * dots if len(shapes) > 1 else 0


def _peak(trace: Trace) -> int:
    last: dict[int, int] = {}
    size: dict[int, int] = {}
    for value in trace.inputs:
        size[value.index] = _bytes(value)
    for op in trace.ops:
        for value in (*op.inputs(), *op.outputs()):
            last[value.index] = op.index
    weights = {value.index for value in trace.tensors.values()}
    ends: dict[int, list[int]] = {}
    for index, at in last.items():
        ends.setdefault(at, []).append(index)
    alive = sum(size.values())
    peak = alive
    for op in trace.ops:
        for value in op.outputs():
            if value.index not in size and value.index not in weights:
                size[value.index] = 0 if is_view(op.func) or does_write(op.func) else _bytes(value)
                alive += size[value.index]
        peak = max(peak, alive)
        alive -= sum(size.get(index, 0) for index in ends.get(op.index, ()))
    return peak


def _bytes(value: Value) -> int:
    return prod(value.shape) * value.dtype.itemsize
