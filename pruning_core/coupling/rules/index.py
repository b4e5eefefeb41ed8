"""Look-ups by position: the indexed axis is fixed, the others pass through.

Where a buffer of the module holds the positions, their numbers are known: then the picked channels pass through, too.
"""

from __future__ import annotations

from typing import Any

import torch

from pruning_core.coupling.rules.elementwise import pointwise
from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, fixed, is_fixed
from pruning_core.trace import Op, Value


def known_pick(op: Op) -> tuple[int, Value] | None:
    """The axis that a call indexes with one tensor of one axis, and that tensor."""
    if op.name == "aten.index_select":
        found = [(op.args[1], op.args[2])]
    elif op.name == "aten.index":
        found = [(dim, value) for dim, value in enumerate(op.args[1]) if value is not None]
    else:
        return None
    dim, value = found[0]
    one = len(found) == 1 and len(value.shape) == 1 and value.dtype in {torch.int64, torch.int32}
    return (dim % max(len(op.args[0].shape), 1), value) if one else None


def _by_known_numbers(ctx: Context, x: Sym, index: Sym) -> Axes | None:
    """Channels picked by numbers that are known: the numbers are channels, too, and go with what they pick."""
    pick = known_pick(ctx.op)
    numbers = None if pick is None else ctx.positions.get(pick[1].index)
    if pick is None or numbers is None or is_fixed(x.axes[pick[0]]):
        return None
    dim = pick[0]
    ids = x.axes[dim][numbers]
    ctx.links.join(ids, index.axes[0])
    return (*x.axes[:dim], ids, *x.axes[dim + 1 :])


@rule("aten.index_select")
def index_select(ctx: Context, x: Sym, dim: int, _index: Sym) -> Axes:
    dim %= x.ndim
    known = _by_known_numbers(ctx, x, _index)
    if known is not None:
        return known
    ctx.links.lock(x.axes[dim], f"picked by position by {ctx.links.where()}")
    return (*x.axes[:dim], fixed(ctx.out_shapes[0][dim]), *x.axes[dim + 1 :])


@rule("aten.index", "aten._unsafe_index")
def index(ctx: Context, x: Sym, indices: tuple[Sym | None, ...]) -> Axes:
    """Advanced indexing: index tensors broadcast together and take the place of the axes they index."""
    known = _by_known_numbers(ctx, x, next(item for item in indices if item is not None))
    if known is not None:
        return known
    shape = ctx.out_shapes[0]
    used: list[int] = []
    ndim = at = 0
    for item in indices:
        if item is None:
            at += 1
            continue
        is_mask = item.dtype in {torch.bool, torch.uint8}
        width = item.ndim if is_mask else 1
        used += range(at, at + width)
        at += width
        ndim = max(ndim, 1 if is_mask else item.ndim)
    for d in used:
        ctx.links.lock(x.axes[d], f"picked by position by {ctx.links.where()}")
    rest = [ids for d, ids in enumerate(x.axes) if d not in used]
    adjacent = not used or used == list(range(used[0], used[-1] + 1))
    lead = used[0] if used and adjacent else 0
    axes = (*rest[:lead], *(fixed(n) for n in shape[lead : lead + ndim]), *rest[lead:])
    if tuple(len(ids) for ids in axes) != shape:
        axes = ctx.lock_all(f"indexing of a form that is not followed in {ctx.links.where()}")[0]
    return axes


@rule("aten.gather", "aten.take_along_dim")
def gather(ctx: Context, x: Sym, dim: int, index: Sym, **_: Any) -> Axes:
    """x [.., n, ..], index of the same rank -> index's shape; along the other axes positions match."""
    dim %= x.ndim
    ctx.links.lock(x.axes[dim], f"picked by position by {ctx.links.where()}")
    out = list(index.axes)
    for d in range(x.ndim):
        if d == dim:
            continue
        if len(index.axes[d]) == len(x.axes[d]):
            out[d] = ctx.links.join(x.axes[d], index.axes[d])
        else:
            ctx.links.lock(x.axes[d], f"picked by position by {ctx.links.where()}")
    return tuple(out)


@rule("aten.tril", "aten.triu", "aten.tril_", "aten.triu_")
def triangle(ctx: Context, x: Sym, *_: Any) -> Axes:
    ctx.links.lock_axes(x.axes[-2:], f"a triangle of positions in {ctx.links.where()}")
    return x.axes


@rule("aten.index_add", "aten.index_add_", "aten.index_copy", "aten.index_copy_", "aten.index_fill", "aten.index_fill_")
def index_write(ctx: Context, x: Sym, dim: int, _index: Sym, source: Any = None, **_: Any) -> Axes:
    """Rows of `source` go to positions of one axis; the other axes are tied."""
    dim %= max(x.ndim, 1)
    ctx.links.lock(x.axes[dim], f"written by position by {ctx.links.where()}")
    if isinstance(source, Sym) and source.ndim == x.ndim:
        ctx.links.lock(source.axes[dim], f"written by position by {ctx.links.where()}")
        for d in range(x.ndim):
            if d != dim:
                ctx.links.join(x.axes[d], source.axes[d])
    return x.axes


@rule("aten.index_put", "aten.index_put_", "aten._index_put_impl_")
def index_put(ctx: Context, x: Sym, indices: tuple[Sym | None, ...], values: Sym, *_: Any) -> Axes:
    """The indexed axes are fixed; trailing axes that no index touches are tied to the values' trailing axes."""
    touched = sum(
        1 if item is None or item.dtype not in {torch.bool, torch.uint8} else max(item.ndim, 1) for item in indices
    )
    where = ctx.links.where()
    ctx.links.lock_axes(x.axes[:touched], f"written by position by {where}")
    rest = x.axes[touched:]
    for back in range(1, len(rest) + 1):
        if back <= values.ndim and len(values.axes[-back]) == len(rest[-back]):
            ctx.links.join(rest[-back], values.axes[-back])
        elif back <= values.ndim and len(values.axes[-back]) != 1:
            ctx.links.lock(rest[-back], f"written by position by {where}")
    return x.axes


@rule(
    "aten.nonzero", "aten.nonzero_numpy", "aten.masked_select", "aten.argwhere", "aten.unique_consecutive", "aten._unique2"
)
def by_value(ctx: Context, *_: Any, **__: Any) -> Any:
    return ctx.lock_all(f"picked by value by {ctx.links.where()}")


@rule("aten.where")
def where(ctx: Context, condition: Sym, *args: Any) -> Any:
    """Three arguments: position by position. One: the positions of what is true."""
    return pointwise(ctx, condition, *args) if args else by_value(ctx)
