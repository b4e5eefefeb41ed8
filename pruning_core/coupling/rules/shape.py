"""Movement of axes and of their positions: nothing is computed, ids only change place."""

from __future__ import annotations

from typing import Any

import numpy as np

from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, Ids, fixed, is_fixed


def reshape_axes(ctx: Context, axes: Axes, new_shape: tuple[int, ...]) -> Axes:
    """Refine both shapes into blocks of equal product; inside a block merge, then split.

    Where two prunable factors merge one is kept; where a prunable axis splits one factor is chosen.
    """
    old_shape = tuple(len(ids) for ids in axes)
    if old_shape == new_shape:
        return axes
    if 0 in old_shape or 0 in new_shape:
        for ids in axes:
            ctx.links.lock(ids, f"reshape of an empty tensor in {ctx.links.where()}")
        return tuple(fixed(n) for n in new_shape)
    out: list[Ids] = []
    i = j = block = 0
    while i < len(old_shape) or j < len(new_shape):
        first_i, first_j = i, j
        left = old_shape[i] if i < len(old_shape) else 1
        right = new_shape[j] if j < len(new_shape) else 1
        i, j = min(i + 1, len(old_shape)), min(j + 1, len(new_shape))
        while left != right:
            if left < right:
                left *= old_shape[i]
                i += 1
            else:
                right *= new_shape[j]
                j += 1
        if left == 1:  # runs of ones on both sides
            while i < len(old_shape) and old_shape[i] == 1 and (j >= len(new_shape) or new_shape[j] != 1):
                i += 1
        out += _block(ctx, axes[first_i:i], new_shape[first_j:j], block)
        block += 1
    return tuple(out)


def _block(ctx: Context, axes: Axes, factors: tuple[int, ...], block: int) -> list[Ids]:
    """Two choices may come up in each block. They are numbered by it, so that a pruned run finds its own again."""
    if all(is_fixed(ids) for ids in axes):
        return [fixed(n) for n in factors]
    live = [k for k, n in enumerate(factors) if n > 1]
    ctx.ordinal = 2 * block
    merged = merge_axes(ctx, axes)
    ctx.ordinal = 2 * block + 1
    if len(live) <= 1 and not ctx.is_decided:
        return [merged if k in live else fixed(n) for k, n in enumerate(factors)]
    options = sorted(live, key=lambda k: (-factors[k], -k)) or [0]
    return ctx.split_factor(merged, factors, "reshape", options)


def merge_axes(ctx: Context, axes: Axes) -> Ids:
    """One axis out of several: the prunable one repeats along the others; of two prunable ones the first real one stays."""
    axes = tuple(ids for ids in axes if len(ids) != 1 or ids[0]) or (fixed(1),)
    live = [k for k, ids in enumerate(axes) if not is_fixed(ids)]
    if len(live) > 1:
        solid = [k for k in live if not ctx.links.is_free(axes[k])] or live
        keep = solid[0]
        if len(solid) > 1:
            sizes = tuple(len(axes[k]) for k in solid)
            keep = solid[ctx.choose("merge", sizes, range(len(solid)), np.concatenate([axes[k] for k in solid]))]
        for k in live:
            if k != keep:
                ctx.links.lock(axes[k], f"merged with another prunable axis by {ctx.links.where()}")
    elif live:
        keep = live[0]
    else:
        return fixed(int(np.prod([len(ids) for ids in axes])))
    shape = [1] * len(axes)
    shape[keep] = len(axes[keep])
    grid = np.broadcast_to(axes[keep].reshape(shape), [len(ids) for ids in axes])
    return grid.reshape(-1)


@rule("aten.view", "aten.reshape", "aten._unsafe_view", "aten._reshape_alias", "aten.view_copy")
def view(ctx: Context, x: Sym, *_: Any, **__: Any) -> Axes:
    return reshape_axes(ctx, x.axes, ctx.out_shapes[0])


@rule("aten.flatten", "aten.unflatten", "aten.squeeze", "aten.squeeze_", "aten.view_as", "aten.reshape_as", "aten.ravel")
def same_elements(ctx: Context, x: Sym, *_: Any, **__: Any) -> Axes:
    return reshape_axes(ctx, x.axes, ctx.out_shapes[0])


@rule("aten.unsqueeze", "aten.unsqueeze_")
def unsqueeze(ctx: Context, x: Sym, dim: int) -> Axes:
    dim = dim % (x.ndim + 1)
    return (*x.axes[:dim], fixed(1), *x.axes[dim:])


@rule("aten.permute")
def permute(ctx: Context, x: Sym, dims: tuple[int, ...]) -> Axes:
    return tuple(x.axes[d] for d in dims)


@rule("aten.transpose", "aten.swapaxes", "aten.swapdims", "aten.transpose_")
def transpose(ctx: Context, x: Sym, a: int, b: int) -> Axes:
    axes = list(x.axes)
    if axes:
        axes[a], axes[b] = axes[b], axes[a]
    return tuple(axes)


@rule("aten.t", "aten.numpy_T", "aten.mT", "aten.adjoint", "aten.t_")
def t(ctx: Context, x: Sym) -> Axes:
    return (*x.axes[:-2], *reversed(x.axes[-2:]))


@rule("aten.movedim", "aten.moveaxis")
def movedim(ctx: Context, x: Sym, source: int | tuple[int, ...], target: int | tuple[int, ...]) -> Axes:
    sources = (source,) if isinstance(source, int) else source
    targets = (target,) if isinstance(target, int) else target
    rest = [d for d in range(x.ndim) if d not in {s % x.ndim for s in sources}]
    placed = {t % x.ndim: s % x.ndim for s, t in zip(sources, targets, strict=True)}
    dims = [placed[d] if d in placed else rest.pop(0) for d in range(x.ndim)]
    return tuple(x.axes[d] for d in dims)


def take(axes: Axes, dim: int, picked: Any) -> Axes:
    """The axes with positions `picked` of axis `dim`."""
    dim %= len(axes)
    ids = axes[dim][picked]
    return (*axes[:dim], fixed(len(ids)) if is_fixed(ids) else ids, *axes[dim + 1 :])


@rule("aten.slice")
def slice_(ctx: Context, x: Sym, dim: int = 0, start: int | None = None, end: int | None = None, step: int = 1) -> Axes:
    return take(x.axes, dim, slice(start, end, step))


@rule("aten.narrow")
def narrow(ctx: Context, x: Sym, dim: int, start: Any, length: int) -> Axes:
    if not isinstance(start, int):
        return ctx.lock_all(f"positions read from a tensor in {ctx.links.where()}")[0]
    start %= max(x.shape[dim], 1)
    return take(x.axes, dim, slice(start, start + length))


@rule("aten.select")
def select(ctx: Context, x: Sym, dim: int, index: int) -> Axes:
    dim %= x.ndim
    position = index % x.shape[dim]
    ctx.links.lock(x.axes[dim][position : position + 1], f"picked one by one by {ctx.links.where()}")
    return x.axes[:dim] + x.axes[dim + 1 :]


@rule("aten.unbind")
def unbind(ctx: Context, x: Sym, dim: int = 0) -> list[Axes]:
    dim %= x.ndim
    ctx.links.lock(x.axes[dim], f"picked one by one by {ctx.links.where()}")
    return [x.axes[:dim] + x.axes[dim + 1 :]] * x.shape[dim]


@rule(
    "aten.split",
    "aten.split_with_sizes",
    "aten.chunk",
    "aten.unsafe_chunk",
    "aten.unsafe_split",
    "aten.unsafe_split_with_sizes",
    "aten.tensor_split",
    "aten.hsplit",
    "aten.vsplit",
    "aten.dsplit",
)
def split(ctx: Context, x: Sym, _how: Any, dim: int = 0, *_: Any) -> list[Axes]:
    """Parts of an axis, sized as they came out. Parts of equal size are tied only where Python insists on it."""
    dim %= x.ndim
    parts = [shape[dim] for shape in ctx.out_shapes]
    ends = np.cumsum(parts)
    found = [take(x.axes, dim, slice(end - n, end)) for n, end in zip(parts, ends, strict=True)]
    if ctx.tied:
        first = found[0][dim]
        for part in found[1:]:
            if len(part[dim]) == len(first):
                ctx.links.join(first, part[dim])
    return found


@rule("aten.flip", "aten.fliplr", "aten.flipud")
def flip(ctx: Context, x: Sym, dims: tuple[int, ...]) -> Axes:
    axes = x.axes
    for dim in dims:
        axes = take(axes, dim, slice(None, None, -1))
    return axes


@rule("aten.roll")
def roll(ctx: Context, x: Sym, shifts: Any, dims: Any = ()) -> Axes:
    shifts = (shifts,) if isinstance(shifts, int) else shifts
    dims = (dims,) if isinstance(dims, int) else dims
    if not dims:
        for ids in x.axes:
            ctx.links.lock(ids, f"rolled over the flattened tensor by {ctx.links.where()}")
        return tuple(fixed(n) for n in x.shape)
    axes = list(x.axes)
    for shift, dim in zip(shifts, dims, strict=True):
        if not is_fixed(axes[dim]):
            axes[dim] = np.roll(axes[dim], shift)
    return tuple(axes)


@rule("aten.expand", "aten.broadcast_to", "aten.expand_as")
def expand(ctx: Context, x: Sym, *_: Any, **__: Any) -> Axes:
    shape = ctx.out_shapes[0]
    lead = len(shape) - x.ndim
    axes: list[Ids] = [ctx.links.free(n) for n in shape[:lead]]
    for n, ids in zip(shape[lead:], x.axes, strict=True):
        axes.append(ids if len(ids) == n else ctx.links.free(n))
    return tuple(axes)


@rule("aten.repeat", "aten.tile")
def repeat(ctx: Context, x: Sym, times: tuple[int, ...]) -> Axes:
    shape = ctx.out_shapes[0]
    axes = (*(fixed(1),) * (len(shape) - x.ndim), *x.axes)
    out: list[Ids] = []
    for n, ids in zip(shape, axes, strict=True):
        if len(ids) == n:
            out.append(ids)
        elif len(ids) == 1:
            out.append(ctx.links.free(n))
        else:
            out.append(fixed(n) if is_fixed(ids) else np.tile(ids, n // len(ids)))
    return tuple(out)


@rule("aten.repeat_interleave")
def repeat_interleave(ctx: Context, x: Sym, repeats: Any, dim: int | None = None, **_: Any) -> Any:
    shape = ctx.out_shapes[0]
    if dim is None or not isinstance(repeats, int):
        return ctx.lock_all(f"repeat_interleave with a tensor or without a dim in {ctx.links.where()}")
    dim %= x.ndim
    ids = x.axes[dim]
    many = fixed(shape[dim]) if is_fixed(ids) else np.repeat(ids, repeats)
    return (*x.axes[:dim], many, *x.axes[dim + 1 :])


@rule("aten.unfold")
def unfold(ctx: Context, x: Sym, dim: int, size: int, step: int) -> Axes:
    """Sliding windows: the axis becomes windows, and a new last axis of positions inside a window."""
    shape = ctx.out_shapes[0]
    dim = dim % x.ndim if x.ndim else 0
    ctx.links.lock(x.axes[dim], f"cut into windows by {ctx.links.where()}")
    return (*x.axes[:dim], fixed(shape[dim]), *x.axes[dim + 1 :], fixed(size))


@rule("aten.diagonal")
def diagonal(ctx: Context, x: Sym, *_: Any, **__: Any) -> Any:
    return ctx.lock_all(f"diagonal in {ctx.links.where()}")
