"""Several tensors into one: concatenation joins the id arrays end to end; padding puts constants beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pruning_core.coupling.rules.elementwise import align
from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, Ids, fixed, is_fixed


@rule("aten.cat", "aten.concat", "aten.concatenate")
def cat(ctx: Context, parts: Sequence[Sym], dim: int = 0) -> Axes:
    parts = [part for part in parts if part.shape != (0,)] or list(parts)
    dim %= parts[0].ndim
    out: list[Ids] = []
    for d in range(parts[0].ndim):
        if d == dim:
            ids = [part.axes[d] for part in parts]
            out.append(fixed(sum(map(len, ids))) if all(map(is_fixed, ids)) else np.concatenate(ids))
        else:
            joined = parts[0].axes[d]
            for part in parts[1:]:
                joined = _partner(ctx, joined, part.axes[d])
            out.append(joined)
    return tuple(out)


def _partner(ctx: Context, a: Ids, b: Ids) -> Ids:
    joined = ctx.links.join(a, b)
    return b if joined is a and ctx.links.is_free(a) else joined


@rule("aten.stack")
def stack(ctx: Context, parts: Sequence[Sym], dim: int = 0) -> Axes:
    axes = align(ctx, parts, parts[0].ndim)
    dim %= len(axes) + 1
    return (*axes[:dim], fixed(len(parts)), *axes[dim:])


@rule("aten.broadcast_tensors", "aten.meshgrid")
def broadcast_tensors(ctx: Context, parts: Sequence[Sym], *_: Any, **__: Any) -> Any:
    if ctx.op.name == "aten.meshgrid":
        return ctx.lock_all(f"meshgrid in {ctx.links.where()}")
    return [align(ctx, parts, len(shape)) for shape in ctx.out_shapes]


@rule("aten.constant_pad_nd")
def constant_pad(ctx: Context, x: Sym, pad: tuple[int, ...], *_: Any) -> Axes:
    """pad = (left, right) of the last axis, then of the one before, ...; negative amounts cut."""
    axes = list(x.axes)
    for k in range(len(pad) // 2):
        left, right = pad[2 * k], pad[2 * k + 1]
        d = x.ndim - 1 - k
        ids = axes[d][max(-left, 0) : len(axes[d]) - max(-right, 0)]
        if left <= 0 and right <= 0:
            axes[d] = ids
        elif is_fixed(ids):
            axes[d] = fixed(max(left, 0) + len(ids) + max(right, 0))
        else:
            axes[d] = np.concatenate([_blank(ctx, left), ids, _blank(ctx, right)])
    return tuple(axes)


def _blank(ctx: Context, n: int) -> Ids:
    """Padding of n entries, all alike: they may go, if whatever they are added to goes (and the amount can be mended)."""
    return ctx.links.fresh(n) if n > 0 else fixed(0)


@rule("aten.pad")
def pad(ctx: Context, x: Sym, amounts: tuple[int, ...], mode: str = "constant", *_: Any) -> Axes:
    if mode == "constant":
        return constant_pad(ctx, x, amounts)
    axes = list(x.axes)
    for k in range(len(amounts) // 2):
        d = x.ndim - 1 - k
        if amounts[2 * k] or amounts[2 * k + 1]:
            ctx.links.lock(axes[d], f"padded by position by {ctx.links.where()}")
            axes[d] = fixed(ctx.out_shapes[0][d])
    return tuple(axes)
