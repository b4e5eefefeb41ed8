"""Attention in one call."""

from __future__ import annotations

import numpy as np

from pruning_core.coupling.rules.elementwise import align
from pruning_core.coupling.rules.linear import contract
from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, Ids, is_fixed


@rule("aten.scaled_dot_product_attention")
def attention(
    ctx: Context,
    q: Sym,
    k: Sym,
    v: Sym,
    mask: Sym | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Axes:
    """q [..., H, L, E], k [..., H, S, E], v [..., H, S, D] -> [..., H, L, D]: E is contracted, heads are tied, D passes."""
    contract(ctx, q.axes[-1], k.axes[-1])
    ctx.links.join(k.axes[-2], v.axes[-2])
    ctx.links.approximate(k.axes[-2], "softmax runs over the pruned axis")
    if causal:
        _same_places(ctx, q.axes[-2], k.axes[-2])
    keys = list(k.axes[:-2])
    values = list(v.axes[:-2])
    if enable_gqa and q.shape[-3] != k.shape[-3]:  # each key head serves a run of query heads
        for heads in (keys, values):
            if not is_fixed(heads[-1]):
                heads[-1] = np.repeat(heads[-1], q.shape[-3] // len(heads[-1]))
            else:
                heads[-1] = np.zeros(q.shape[-3], dtype=np.int64)
    sides = [Sym(q.axes[:-2], q.dtype), Sym(tuple(keys), k.dtype), Sym(tuple(values), v.dtype)]
    lead = align(ctx, sides, max(q.ndim, k.ndim, v.ndim) - 2)
    if mask is not None:
        align(ctx, [Sym((*lead, q.axes[-2], k.axes[-2]), q.dtype), mask], len(lead) + 2)
    ctx.links.emit(v.axes[-1])
    return (*lead, q.axes[-2], v.axes[-1])


def _same_places(ctx: Context, queries: Ids, keys: Ids) -> None:
    """Causal: the n-th query sees the first n keys. What goes on both sides leaves the others in their order."""
    if len(queries) == len(keys):
        ctx.links.join(queries, keys)
    else:
        ctx.links.lock_axes((queries, keys), f"a causal mask counts positions in {ctx.links.where()}")
