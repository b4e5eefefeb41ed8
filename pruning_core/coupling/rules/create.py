"""Tensors out of nothing: constant fills fit whatever they meet; anything else has positions that matter."""

from __future__ import annotations

from typing import Any

from pruning_core.coupling.rules.table import Context, Sym, rule
from pruning_core.coupling.units import Axes, all_fixed

CONSTANT = (
    "aten.zeros",
    "aten.ones",
    "aten.full",
    "aten.empty",
    "aten.new_zeros",
    "aten.new_ones",
    "aten.new_full",
    "aten.new_empty",
    "aten.empty_strided",
    "aten.new_empty_strided",
)


@rule(*CONSTANT)
def constant(ctx: Context, *_: Any, **__: Any) -> Axes:
    return tuple(ctx.links.free(n) for n in ctx.out_shapes[0])


@rule(
    "aten.arange",
    "aten.linspace",
    "aten.eye",
    "aten.rand",
    "aten.randn",
    "aten.randint",
    "aten.randperm",
    "aten.scalar_tensor",
    "aten.hann_window",
    "aten.logspace",
    "aten.tril_indices",
    "aten.triu_indices",
    "aten._efficientzerotensor",
)
def positional(ctx: Context, *_: Any, **__: Any) -> Axes:
    return all_fixed(ctx.out_shapes[0])


LIKE = (
    "aten.zeros_like",
    "aten.ones_like",
    "aten.full_like",
    "aten.empty_like",
    "aten.rand_like",
    "aten.randn_like",
    "aten.normal_",
    "aten.uniform_",
    "aten.bernoulli_",
)


@rule(*LIKE)
def like(ctx: Context, x: Sym, *_: Any, **__: Any) -> Axes:
    return x.axes
