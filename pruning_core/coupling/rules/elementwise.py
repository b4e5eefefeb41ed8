"""Operators that work position by position: aligned axes are tied; an axis broadcast from 1 ties nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pruning_core.coupling.rules.table import Context, Sym, rule, symbols
from pruning_core.coupling.units import Axes, Ids, fixed


def align(ctx: Context, operands: Sequence[Sym], ndim: int) -> Axes:
    """Broadcast like PyTorch: right-aligned axes of one length are tied; one broadcast from 1 ties nothing."""
    out: list[Ids] = []
    for back in range(ndim, 0, -1):
        axes = [sym.axes[-back] for sym in operands if sym.ndim >= back]
        length = max((len(ids) for ids in axes), default=1)
        ids: Ids | None = None
        for mine in axes:
            if len(mine) == length:
                ids = mine if ids is None else _join_axis(ctx, ids, mine)
            else:  # a single channel that is spread over the others
                ctx.links.lock(mine, f"broadcast by {ctx.links.where()}")
        out.append(fixed(1) if ids is None else ids)
    return tuple(out)


def _join_axis(ctx: Context, a: Ids, b: Ids) -> Ids:
    """A constant fill takes the ids of its partner, even where those are fixed."""
    joined = ctx.links.join(a, b)
    return b if ctx.links.is_free(a) and joined is a else joined


def pointwise(ctx: Context, *args: Any, **kwargs: Any) -> Any:
    """Any operator that PyTorch tags as pointwise. In-place ones write into their first argument."""
    operands = symbols(args) + symbols(list(kwargs.values()))
    shapes = ctx.out_shapes
    return [align(ctx, operands, len(shape)) for shape in shapes]


def is_pointwise(func: Any) -> bool:
    return torch.Tag.pointwise in func.tags


_SAME = (
    "aten.clone aten.contiguous aten.to aten._to_copy aten.dropout aten.dropout_ aten.feature_dropout aten.alpha_dropout"
    " aten.feature_alpha_dropout aten.native_dropout aten.bernoulli aten.type_as aten.float aten.alias_copy"
    " aten.requires_grad_ aten.detach_ aten.detach_copy aten.lift_fresh_copy aten.cpu aten.cuda aten.positive"
    " aten.resolve_conj aten.resolve_neg aten.conj aten._conj aten._conj_physical aten.conj_physical"
    " aten.fake_quantize_per_tensor_affine"
)


@rule(*_SAME.split())
def same(ctx: Context, x: Sym, *_: Any, **__: Any) -> Any:
    return [x.axes for _ in ctx.out_shapes]


_POINTWISE = (
    "aten.copy_ aten.copy aten.relu6 aten.relu6_ aten.selu aten.celu aten.addcmul aten.addcdiv"
    " aten.masked_fill aten.masked_fill_ aten.rsub aten.threshold aten.maximum aten.minimum aten.max.other aten.true_divide"
    " aten.rrelu aten.rrelu_ aten.hardsigmoid aten.log_sigmoid aten.softplus aten.floor_divide aten.square aten.square_"
    " aten.divide aten.multiply aten.subtract aten.lerp aten.lerp_ aten.clip aten.absolute aten.negative"
    " aten.isfinite aten.isinf aten.isnan aten.fill_ aten.zero_ aten.special_expit aten.polar aten.complex aten.angle"
    " aten.log_sigmoid_forward aten.selu_ aten.celu_ aten.greater aten.less aten.greater_equal aten.less_equal"
    " aten.not_equal"
    " aten.arctan aten.float_power aten.fix aten.clamp_min aten.clamp_max aten.erf aten._prelu_kernel aten.nan_to_num"
    " aten.mul aten.add aten.sub aten.div aten.mul_ aten.add_ aten.sub_ aten.div_ aten.relu aten.relu_ aten.gelu aten.silu"
    " aten.silu_ aten.sigmoid aten.tanh aten.hardtanh aten.hardtanh_ aten.hardswish aten.hardswish_ aten.hardsigmoid_"
    " aten.leaky_relu aten.leaky_relu_ aten.elu aten.elu_ aten.mish aten.mish_ aten.softplus_ aten.dist_ aten.logical_not"
)
for _name in dict.fromkeys(_POINTWISE.split()):
    if _name.count(".") == 1:
        rule(_name)(pointwise)


@rule("aten.prelu")
def prelu(ctx: Context, x: Sym, weight: Sym) -> Axes:
    """x [N, C, ...], weight [C] or [1]."""
    if weight.ndim and weight.shape[0] > 1 and x.ndim > 1:
        ctx.links.join(x.axes[1], weight.axes[0])
    return x.axes


@rule("aten.glu")
def glu(ctx: Context, x: Sym, dim: int = -1) -> Axes:
    """Halves a and b of an axis -> a * sigmoid(b)."""
    dim %= x.ndim
    half = x.shape[dim] // 2
    ids = x.axes[dim]
    return (*x.axes[:dim], ctx.links.join(ids[:half], ids[half:]), *x.axes[dim + 1 :])


@rule("aten.view_as_complex")
def view_as_complex(ctx: Context, x: Sym) -> Axes:
    return x.axes[:-1]


@rule("aten.view_as_real")
def view_as_real(ctx: Context, x: Sym) -> Axes:
    return (*x.axes, fixed(2))


@rule("aten.real", "aten.imag")
def real_part(ctx: Context, x: Sym) -> Axes:
    return x.axes
