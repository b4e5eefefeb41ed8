"""Reductions over axes. A sum loses exactly what the removed channels brought; other statistics become approximate."""

from __future__ import annotations

from typing import Any

from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, fixed


def _reduced(ctx: Context, x: Sym, dims: Any, index: int = 0) -> tuple[set[int], Axes]:
    """The reduced axes, and the axes of the result (with or without the reduced ones, as its shape says)."""
    listed = range(x.ndim) if dims is None or dims == () else ((dims,) if isinstance(dims, int) else dims)
    gone = {d % x.ndim for d in listed} if x.ndim else set()
    keepdim = len(ctx.out_shapes[index]) == x.ndim
    out = [fixed(1) if d in gone else ids for d, ids in enumerate(x.axes) if keepdim or d not in gone]
    return gone, tuple(out)


def _dims(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    dims = kwargs.get("dim", args[0] if args else None)
    return dims if not isinstance(dims, bool | float) else None


@rule("aten.sum", "aten.nansum")
def sum_(ctx: Context, x: Sym, *args: Any, **kwargs: Any) -> Axes:
    gone, out = _reduced(ctx, x, _dims(args, kwargs))
    for d in gone:
        ctx.links.read(x.axes[d])
    return out


@rule(
    "aten.mean",
    "aten.amax",
    "aten.amin",
    "aten.logsumexp",
    "aten.prod",
    "aten.any",
    "aten.all",
    "aten.count_nonzero",
)
def statistic(ctx: Context, x: Sym, *args: Any, **kwargs: Any) -> Axes:
    gone, out = _reduced(ctx, x, _dims(args, kwargs))
    for d in gone:
        ctx.links.approximate(x.axes[d], f"{ctx.op.name.removeprefix('aten.')} runs over the pruned axis")
    return out


@rule("aten.var", "aten.std", "aten.var_mean", "aten.std_mean")
def spread(ctx: Context, x: Sym, *args: Any, **kwargs: Any) -> list[Axes]:
    gone, out = _reduced(ctx, x, _dims(args, kwargs))
    for d in gone:
        ctx.links.approximate(x.axes[d], f"{ctx.op.name.removeprefix('aten.')} runs over the pruned axis")
    return [out for _ in ctx.out_shapes]


@rule("aten.norm", "aten.linalg_vector_norm", "aten.frobenius_norm")
def vector_norm(ctx: Context, x: Sym, _ord: Any = 2, dims: Any = None, *_: Any, **kwargs: Any) -> Axes:
    """A norm loses exactly the removed channels' part of it; that of order 0 is a count."""
    dims = kwargs.get("dim", dims)
    gone, out = _reduced(ctx, x, None if isinstance(dims, bool) else dims)
    for d in gone:
        ctx.links.read(x.axes[d])
        if _ord == 0:
            ctx.links.approximate(x.axes[d], "a count runs over the pruned axis")
        if isinstance(_ord, int | float) and _ord < 0:  # the smallest entries decide, and a muted one is small
            ctx.links.lock(x.axes[d], f"a norm of the smallest entries in {ctx.links.where()}")
    return out


@rule("aten.max", "aten.min", "aten.median")
def extreme(ctx: Context, x: Sym, *args: Any, **kwargs: Any) -> Any:
    """Values, and the positions where they were: positions over a pruned axis must not be used."""
    if args and isinstance(args[0], Sym):  # the two-tensor form
        from pruning_core.coupling.rules.elementwise import pointwise

        return pointwise(ctx, x, args[0])
    outputs = ctx.op.outputs()
    gone, out = _reduced(ctx, x, _dims(args, kwargs))
    for d in gone:
        if len(outputs) > 1 and ctx.is_used(outputs[1]):
            ctx.links.lock(x.axes[d], f"positions along it are used after {ctx.links.where()}")
        ctx.links.approximate(x.axes[d], f"{ctx.op.name.removeprefix('aten.')} runs over the pruned axis")
    return [out for _ in outputs]


@rule("aten.argmax", "aten.argmin", "aten.topk", "aten.sort", "aten.argsort", "aten.kthvalue", "aten.mode")
def positions(ctx: Context, x: Sym, *args: Any, **kwargs: Any) -> Any:
    """What comes out counts positions of the axis, or is ordered along it: nothing of it may go."""
    takes_k = ctx.op.name in {"aten.topk", "aten.kthvalue"}
    dim = kwargs.get("dim", (args[1] if len(args) > 1 else -1) if takes_k else (args[0] if args else -1))
    if not isinstance(dim, int) or isinstance(dim, bool):
        return ctx.lock_all(f"positions of the flattened tensor in {ctx.links.where()}")
    dim %= max(x.ndim, 1)
    ctx.links.lock(x.axes[dim], f"positions along it are used by {ctx.links.where()}")
    out: list[Axes] = []
    for shape in ctx.out_shapes:
        if len(shape) == x.ndim:
            out.append((*x.axes[:dim], fixed(shape[dim]), *x.axes[dim + 1 :]))
        else:
            out.append(x.axes[:dim] + x.axes[dim + 1 :])
    return out


@rule("aten.cumsum", "aten.cumprod", "aten.logcumsumexp", "aten.cummax", "aten.cummin")
def cumulative(ctx: Context, x: Sym, dim: int, *_: Any, **__: Any) -> Any:
    ctx.links.lock(x.axes[dim], f"summed up step by step by {ctx.links.where()}")
    return [x.axes for _ in ctx.out_shapes]


@rule("aten.softmax", "aten._softmax", "aten.log_softmax", "aten._log_softmax", "aten._safe_softmax")
def softmax(ctx: Context, x: Sym, dim: int, *_: Any, **__: Any) -> Axes:
    ctx.links.approximate(x.axes[dim], "softmax runs over the pruned axis")
    return x.axes


@rule("aten.normalize", "aten.cosine_similarity")
def cosine(ctx: Context, x: Sym, y: Sym, dim: int = 1, *_: Any) -> Axes:
    from pruning_core.coupling.rules.elementwise import align

    axes = align(ctx, [x, y], max(x.ndim, y.ndim))
    dim %= len(axes)
    ctx.links.read(axes[dim])
    return axes[:dim] + axes[dim + 1 :]
