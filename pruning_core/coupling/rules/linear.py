"""Contractions: two axes are summed over together; what is left over passes through."""

from __future__ import annotations

from typing import Any

from pruning_core.coupling.rules.elementwise import align
from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, Ids, all_fixed, fixed


def contract(ctx: Context, a: Ids, b: Ids) -> None:
    ctx.links.join(a, b)
    ctx.links.read(a)
    ctx.links.read(b)


@rule("aten.linear")
def linear(ctx: Context, x: Sym, weight: Sym, bias: Sym | None = None) -> Axes:
    """x [..., I], weight [O, I], bias [O] -> [..., O]: x's last axis is tied to I; O is free of I."""
    contract(ctx, x.axes[-1], weight.axes[-1])
    if weight.ndim == 1:
        return x.axes[:-1]
    ctx.links.emit(weight.axes[0])
    if bias is not None and bias.ndim:
        ctx.links.join(weight.axes[0], bias.axes[-1])
    return (*x.axes[:-1], weight.axes[0])


@rule("aten.addmm", "aten.addbmm", "aten.baddbmm")
def addmm(ctx: Context, bias: Sym, a: Sym, b: Sym, **_: Any) -> Axes:
    out = matmul(ctx, a, b)
    return align(ctx, [bias, Sym(out, bias.dtype)], len(out))


@rule("aten.mm", "aten.bmm", "aten.matmul", "aten.mv", "aten.dot", "aten.vdot")
def matmul(ctx: Context, a: Sym, b: Sym) -> Axes:
    """[..., M, K] @ [..., K, N] -> [..., M, N], batch axes broadcast; vectors have no M or no N."""
    contract(ctx, a.axes[-1], b.axes[-2] if b.ndim > 1 else b.axes[0])
    rows = a.axes[-2:-1]
    cols = b.axes[-1:] if b.ndim > 1 else ()
    batch = align(ctx, [Sym(a.axes[:-2], a.dtype), Sym(b.axes[:-2], b.dtype)], max(a.ndim, b.ndim, 2) - 2)
    for ids in (*rows, *cols):
        ctx.links.emit(ids)
    return (*batch, *rows, *cols)


@rule("aten.einsum")
def einsum(ctx: Context, equation: str, operands: tuple[Sym, ...], **_: Any) -> Axes:
    """Axes with one letter are tied; letters that the output lacks are summed over."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    rank = {term: operand.ndim - len(term.replace("...", "")) for term, operand in zip(terms, operands, strict=True)}
    dots = max(rank.values(), default=0)
    ellipsis = [f"<{k}>" for k in range(dots)]

    def letters(term: str, count: int) -> list[str]:
        if "..." not in term:
            return list(term)
        head, _, tail = term.partition("...")
        return [*head, *ellipsis[dots - count :], *tail]

    found: dict[str, Ids] = {}
    uses: dict[str, int] = {}
    for term, operand in zip(terms, operands, strict=True):
        for letter, ids in zip(letters(term, rank[term]), operand.axes, strict=True):
            uses[letter] = uses.get(letter, 0) + 1
            if letter in found and len(found[letter]) != 1 and len(ids) != 1:
                ctx.links.join(found[letter], ids)
            if letter not in found or len(found[letter]) == 1:
                found[letter] = ids
    if not arrow:
        right = "..." * bool(dots) + "".join(sorted(c for c in uses if uses[c] == 1 and not c.startswith("<")))
    kept = letters(right, dots)
    for letter, ids in found.items():
        if letter in kept:
            ctx.links.emit(ids)
        else:
            ctx.links.read(ids)
    return tuple(found[letter] for letter in kept)


@rule("aten.bilinear")
def bilinear(ctx: Context, x1: Sym, x2: Sym, weight: Sym, bias: Sym | None = None) -> Axes:
    """x1 [..., I], x2 [..., J], weight [O, I, J] -> [..., O]."""
    contract(ctx, x1.axes[-1], weight.axes[1])
    contract(ctx, x2.axes[-1], weight.axes[2])
    ctx.links.emit(weight.axes[0])
    if bias is not None:
        ctx.links.join(weight.axes[0], bias.axes[0])
    lead = align(ctx, [Sym(x1.axes[:-1], x1.dtype), Sym(x2.axes[:-1], x2.dtype)], max(x1.ndim, x2.ndim) - 1)
    return (*lead, weight.axes[0])


@rule("aten.embedding")
def embedding(ctx: Context, weight: Sym, indices: Sym, *_: Any) -> Axes:
    """weight [V, D], indices [...] -> [..., D]: rows are looked up by number, so V is fixed."""
    ctx.links.lock(weight.axes[0], f"looked up by number by {ctx.links.where()}")
    ctx.links.emit(weight.axes[1])
    return (*indices.axes, weight.axes[1])


@rule("aten.embedding_bag", "aten._embedding_bag")
def embedding_bag(ctx: Context, weight: Sym, *_: Any, **__: Any) -> list[Axes]:
    """weight [V, D] -> [bags, D] and three integer tensors."""
    ctx.links.lock(weight.axes[0], f"looked up by number by {ctx.links.where()}")
    ctx.links.emit(weight.axes[1])
    shapes = ctx.out_shapes
    return [(fixed(shapes[0][0]), weight.axes[1]), *(all_fixed(shape) for shape in shapes[1:])]


@rule("aten.outer", "aten.ger")
def outer(ctx: Context, a: Sym, b: Sym) -> Axes:
    return (*a.axes, *b.axes)
