"""Pooling, resampling and rearrangement of space: channels pass through, positions are fixed."""

from __future__ import annotations

from typing import Any

import numpy as np

from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, fixed, is_fixed


def _channels_pass(ctx: Context, x: Sym, spatial: int) -> list[Axes]:
    ctx.links.lock_axes(x.axes[-spatial:], f"spatial positions of {ctx.links.where()}")
    lead = x.axes[:-spatial]
    return [(*lead, *(fixed(n) for n in shape[len(lead) :])) for shape in ctx.out_shapes]


def _register(names: str, spatial: int) -> None:
    def pooled(ctx: Context, x: Sym, *_: Any, **__: Any) -> list[Axes]:
        return _channels_pass(ctx, x, spatial)

    rule(*names.split())(pooled)


for _n in (1, 2, 3):
    _register(
        " ".join(
            f"aten.{name}{_n}d"
            for name in ("max_pool", "avg_pool", "adaptive_avg_pool", "_adaptive_avg_pool", "adaptive_max_pool")
        )
        + " "
        + " ".join(f"aten.{name}{_n}d" for name in ("reflection_pad", "replication_pad", "upsample_nearest"))
        + f" aten.max_pool{_n}d_with_indices aten._upsample_nearest_exact{_n}d aten.fractional_max_pool{_n}d",
        _n,
    )
_register("aten.upsample_linear1d", 1)
_register("aten.upsample_bilinear2d aten.upsample_bicubic2d aten._upsample_bilinear2d_aa aten._upsample_bicubic2d_aa", 2)
_register("aten.upsample_trilinear3d", 3)


@rule("aten.grid_sampler", "aten.grid_sampler_2d", "aten.grid_sampler_3d")
def grid_sample(ctx: Context, x: Sym, grid: Sym, *_: Any) -> Axes:
    """x [N, C, *S], grid [N, *S', k] -> [N, C, *S']."""
    ctx.links.lock_axes(x.axes[2:], f"spatial positions of {ctx.links.where()}")
    ctx.links.lock_axes(grid.axes, f"positions of {ctx.links.where()}")
    return (*x.axes[:2], *(fixed(n) for n in ctx.out_shapes[0][2:]))


@rule("aten.affine_grid_generator")
def affine_grid(ctx: Context, theta: Sym, *_: Any) -> Any:
    """theta [N, 2, 3] -> positions [N, H, W, 2]."""
    return ctx.lock_all(f"positions of {ctx.links.where()}")


@rule("aten.pixel_shuffle")
def pixel_shuffle(ctx: Context, x: Sym, r: int) -> Axes:
    """[..., C r r, H, W] -> [..., C, H r, W r]."""
    ids = x.axes[-3]
    c = ctx.split_factor(ids, (len(ids) // (r * r), r * r), "reshape", [0])[0]
    ctx.links.lock_axes(x.axes[-2:], f"spatial positions of {ctx.links.where()}")
    return (*x.axes[:-3], c, fixed(x.shape[-2] * r), fixed(x.shape[-1] * r))


@rule("aten.pixel_unshuffle")
def pixel_unshuffle(ctx: Context, x: Sym, r: int) -> Axes:
    """[..., C, H r, W r] -> [..., C r r, H, W]."""
    ids = x.axes[-3]
    ctx.links.lock_axes(x.axes[-2:], f"spatial positions of {ctx.links.where()}")
    many = fixed(len(ids) * r * r) if is_fixed(ids) else np.repeat(ids, r * r)
    return (*x.axes[:-3], many, fixed(x.shape[-2] // r), fixed(x.shape[-1] // r))


@rule("aten.channel_shuffle", "aten.native_channel_shuffle")
def channel_shuffle(ctx: Context, x: Sym, groups: int) -> Axes:
    """[N, g c, ...]: axis read as (g, c), written as (c, g)."""
    ids = x.axes[1]
    if is_fixed(ids):
        return x.axes
    factors = ctx.split_factor(ids, (groups, len(ids) // groups), "reshape", [1, 0])
    keep = 0 if not is_fixed(factors[0]) else 1
    grid = factors[0][:, None] if keep == 0 else factors[1][None, :]
    grid = np.broadcast_to(grid, (groups, len(ids) // groups))
    return (x.axes[0], grid.T.reshape(-1), *x.axes[2:])


@rule("aten.im2col")
def im2col(ctx: Context, x: Sym, kernel: tuple[int, int], *_: Any) -> Axes:
    """[N, C, H, W] -> [N, C kh kw, L]."""
    ctx.links.lock_axes(x.axes[-2:], f"spatial positions of {ctx.links.where()}")
    shape = ctx.out_shapes[0]
    ids = x.axes[-3]
    many = fixed(shape[-2]) if is_fixed(ids) else np.repeat(ids, shape[-2] // len(ids))
    return (*x.axes[:-3], many, fixed(shape[-1]))


@rule("aten.col2im")
def col2im(ctx: Context, x: Sym, _size: Any, kernel: tuple[int, int], *_: Any) -> Axes:
    """[N, C kh kw, L] -> [N, C, H, W]."""
    area = int(np.prod(kernel))
    c = ctx.split_factor(x.axes[-2], (len(x.axes[-2]) // area, area), "reshape", [0])[0]
    ctx.links.lock_axes(x.axes[-1:], f"spatial positions of {ctx.links.where()}")
    shape = ctx.out_shapes[0]
    return (*x.axes[:-2], c, fixed(shape[-2]), fixed(shape[-1]))


@rule("aten._fft_r2c", "aten._fft_c2r", "aten._fft_c2c")
def fft(ctx: Context, x: Sym, dims: Any, *_: Any, **__: Any) -> Axes:
    """Positions of the transformed axes mix; the others pass."""
    axes = list(x.axes)
    for dim in (dims,) if isinstance(dims, int) else dims:
        ctx.links.lock(axes[dim], f"transformed by {ctx.links.where()}")
        axes[dim] = fixed(ctx.out_shapes[0][dim])
    return tuple(axes)


@rule("torchvision.roi_align", "torchvision.roi_pool", "torchvision.ps_roi_align")
def roi_align(ctx: Context, x: Sym, rois: Sym, *_: Any) -> Any:
    """x [N, C, H, W], rois [K, 5] -> [K, C, h, w]."""
    if ctx.op.name == "torchvision.ps_roi_align":
        return ctx.lock_all(f"position-sensitive pooling in {ctx.links.where()}")
    ctx.links.lock_axes((x.axes[0], *x.axes[2:], *rois.axes), f"positions of {ctx.links.where()}")
    shape = ctx.out_shapes[0]
    return (fixed(shape[0]), x.axes[1], *(fixed(n) for n in shape[2:]))
