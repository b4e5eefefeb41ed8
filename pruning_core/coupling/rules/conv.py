"""Convolutions of any rank, groups and direction."""

from __future__ import annotations

from typing import Any

from pruning_core.coupling.rules.linear import contract
from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, fixed


def _spatial(ctx: Context, x: Sym, weight: Sym, stride: Any, padding: Any) -> Axes:
    """Spatial axes of the output. A kernel of one position without stride or padding leaves an axis as it is."""
    where = ctx.links.where()
    ctx.links.lock_axes(weight.axes[2:], f"kernel positions of {where}")
    ndim = weight.ndim - 2
    strides = (stride,) * ndim if isinstance(stride, int) else tuple(stride) * (ndim if len(stride) == 1 else 1)
    out: list[Any] = []
    for k, size in enumerate(ctx.out_shapes[0][-ndim:]):
        ids = x.axes[k - ndim]
        unpadded = padding in (0, "valid") or (isinstance(padding, tuple) and not padding[k % len(padding)])
        if weight.shape[2 + k] == 1 and strides[k] == 1 and unpadded and size == len(ids):
            out.append(ids)
        else:
            ctx.links.lock(ids, f"spatial positions of {where}")
            out.append(fixed(size))
    return tuple(out)


def convolve(
    ctx: Context, x: Sym, weight: Sym, bias: Sym | None, groups: int, stride: Any, padding: Any, *, transposed: bool
) -> Axes:
    """x [N, C, *S]; weight [O, C/g, *K], or [C, O/g, *K] transposed -> [N, O, *S'].

    groups = 1: C is contracted, O passes on. Depthwise: O follows C. In between, either every group loses the same
    positions (`within`) or whole groups go (`whole`).
    """
    spatial = _spatial(ctx, x, weight, stride, padding)
    ndim = weight.ndim - 2
    batch, channels = x.axes[: -ndim - 1], x.axes[-ndim - 1]
    if groups == 1 and not ctx.is_decided:  # decided: the one group that rounds of whole-group cuts have left
        inner, out = (weight.axes[0], weight.axes[1]) if transposed else (weight.axes[1], weight.axes[0])
        contract(ctx, channels, inner)
        ctx.links.emit(out)
    else:
        out = _grouped(ctx, channels, weight, groups, transposed)
    if bias is not None:
        ctx.links.join(out, bias.axes[0])
    return (*batch, out, *spatial)


def _grouped(ctx: Context, channels: Any, weight: Sym, groups: int, transposed: bool) -> Any:
    links = ctx.links
    per_in, per_out = len(channels) // groups, (weight.shape[1] if transposed else weight.shape[0] // groups)
    options = [1, 0] if per_in > 1 else [0]
    taken = 0
    if ctx.is_decided or (groups > 1 and (per_in > 1 or per_out > 1)):  # decided: rounds may have left one channel of each
        taken = ctx.choose("groups", (groups, per_in), options, channels)
    if taken < 0:
        links.lock_axes((channels, *weight.axes[:2]), f"no factor of the groups can stay prunable in {links.where()}")
        return fixed(groups * per_out)
    if transposed:
        in_axis, out_axis = weight.axes[0], None
        links.join(channels, in_axis)
    else:
        in_axis, out_axis = None, weight.axes[0]
    if taken == 0:  # whole groups: every channel of a group, in and out, goes with its first one
        heads = channels.reshape(groups, per_in)
        for j in range(1, per_in):
            links.join(heads[:, 0], heads[:, j])
        lead = heads[:, 0]
        links.lock(weight.axes[1], f"channels inside the groups of {links.where()}")
        if out_axis is None:
            if per_in == per_out:  # else the rows are not as many as the outputs
                links.emit(weight.axes[0])
            return lead.repeat(per_out)
        outs = out_axis.reshape(groups, per_out)
        for j in range(per_out):
            links.join(outs[:, j], lead)
        links.emit(out_axis)
        return out_axis
    # within: position j of every group goes together
    grid = channels.reshape(groups, per_in)
    position = grid[0]
    for g in range(1, groups):
        links.join(position, grid[g])
    if out_axis is None:
        links.read(channels)
        links.emit(weight.axes[1], blocks=groups)
        tiled = weight.axes[1][None].repeat(groups, axis=0)
        return tiled.reshape(-1)
    contract(ctx, position, weight.axes[1])
    links.read(channels)
    outs = out_axis.reshape(groups, per_out)
    if ctx.decisions.group_policy in {"count", "none"}:  # the same number, each group's own positions
        links.balances[ctx.op.index] = outs
    else:
        for g in range(1, groups):
            links.join(outs[0], outs[g])
    links.emit(out_axis)
    return out_axis


@rule("aten.conv1d", "aten.conv2d", "aten.conv3d")
def conv(
    ctx: Context,
    x: Sym,
    weight: Sym,
    bias: Sym | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Axes:
    return convolve(ctx, x, weight, bias, groups, stride, padding, transposed=False)


@rule("aten.conv_transpose1d", "aten.conv_transpose2d", "aten.conv_transpose3d")
def conv_transpose(
    ctx: Context,
    x: Sym,
    weight: Sym,
    bias: Sym | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Axes:
    return convolve(ctx, x, weight, bias, groups, stride, padding, transposed=True)


@rule("aten.convolution", "aten._convolution")
def convolution(
    ctx: Context,
    x: Sym,
    weight: Sym,
    bias: Sym | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
    *_: Any,
) -> Axes:
    return convolve(ctx, x, weight, bias, groups, stride, padding, transposed=transposed)
