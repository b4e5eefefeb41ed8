"""Normalisations tie their parameters to the axis; those with statistics over the axis make its cut approximate."""

from __future__ import annotations

from typing import Any

from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, Ids, fixed


def _tie(ctx: Context, ids: Ids, *params: Sym | None) -> None:
    for param in params:
        if param is not None and param.ndim == 1 and param.shape[0] == len(ids):
            ctx.links.join(ids, param.axes[0])


@rule(
    "aten.batch_norm",
    "aten.native_batch_norm",
    "aten.instance_norm",
    "aten._native_batch_norm_legit_no_training",
    "aten.cudnn_batch_norm",
    "aten._batch_norm_with_update",
    "aten._native_batch_norm_legit",
)
def batch_norm(ctx: Context, x: Sym, *args: Any, **_: Any) -> list[Axes]:
    """x [N, C, ...] with weight, bias, mean, variance [C]: per channel, so a cut is exact."""
    _tie(ctx, x.axes[1], *(arg for arg in args[:4] if isinstance(arg, Sym)))
    training = len(args) > 4 and args[4] is True and ctx.op.name != "aten._native_batch_norm_legit_no_training"
    if training:
        for ids in (x.axes[0], *x.axes[2:]):
            ctx.links.approximate(ids, "batch_norm runs over the pruned axis")
    return [x.axes, *(tuple(x.axes[1:2]) if len(s) == 1 else tuple(fixed(n) for n in s) for s in ctx.out_shapes[1:])]


@rule("aten.layer_norm", "aten.native_layer_norm", "aten.rms_norm", "aten._fused_rms_norm")
def layer_norm(
    ctx: Context, x: Sym, normalized_shape: tuple[int, ...], weight: Sym | None = None, bias: Any = None, *_: Any
) -> list[Axes]:
    """Statistics over the last axes; weight and bias have their shape."""
    k = len(normalized_shape)
    for pos in range(1, k + 1):
        for param in (weight, bias):
            if isinstance(param, Sym):
                ctx.links.join(x.axes[-pos], param.axes[-pos])
        ctx.links.approximate(x.axes[-pos], f"{ctx.op.name.removeprefix('aten.')} runs over the pruned axis")
    lead = x.axes[:-k]
    return [x.axes, *((*lead, *(fixed(1),) * (len(shape) - len(lead))) for shape in ctx.out_shapes[1:])]


def _groups(ctx: Context, x: Sym, groups: int, weight: Sym | None, bias: Sym | None) -> None:
    ids = x.axes[1]
    _tie(ctx, ids, weight, bias)
    for positions in x.axes[2:]:
        ctx.links.approximate(positions, "group_norm runs over the pruned axis")
    size = len(ids) // groups
    options = [0, 1] if groups >= size else [1, 0]
    options = [k for k in options if (groups, size)[k] > 1]
    if not options and not ctx.is_decided:
        return
    free = len(options) < 2 and not ctx.is_decided
    taken = options[0] if free else ctx.choose("norm_groups", (groups, size), options, ids)
    if taken < 0:
        ctx.links.lock(ids, f"no factor of the normalisation groups can stay prunable in {ctx.links.where()}")
        return
    grid = ids.reshape(groups, size)
    if taken == 0:  # whole groups go: the statistics of the others stay exact
        for j in range(1, size):
            ctx.links.join(grid[:, 0], grid[:, j])
        return
    for g in range(1, groups):
        ctx.links.join(grid[0], grid[g])
    ctx.links.approximate(ids, "group_norm runs over the pruned axis")


@rule("aten.group_norm")
def group_norm(ctx: Context, x: Sym, groups: int, weight: Any = None, bias: Any = None, *_: Any) -> Axes:
    """x [N, C, ...] in `groups` groups of channels."""
    _groups(ctx, x, groups, weight, bias)
    return x.axes


@rule("aten.native_group_norm")
def native_group_norm(
    ctx: Context, x: Sym, weight: Any, bias: Any, _n: int, _c: int, _s: int, groups: int, _eps: float
) -> list[Axes]:
    _groups(ctx, x, groups, weight, bias)
    return [x.axes, *(tuple(fixed(n) for n in shape) for shape in ctx.out_shapes[1:])]


@rule("aten._weight_norm", "aten._weight_norm_interface")
def weight_norm(ctx: Context, v: Sym, g: Sym, dim: int = 0) -> list[Axes]:
    """w = g v / ||v||: the norm runs over every axis but `dim`."""
    dim %= v.ndim
    if g.ndim == v.ndim:
        ctx.links.join(v.axes[dim], g.axes[dim])
    for pos, ids in enumerate(v.axes):
        if pos != dim:
            ctx.links.approximate(ids, "weight_norm runs over the pruned axis")
    return [v.axes, *(tuple(fixed(n) for n in shape) for shape in ctx.out_shapes[1:])]
