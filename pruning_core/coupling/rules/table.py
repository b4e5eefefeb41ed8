"""The table of rules, and what a rule sees of a call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import torch

from pruning_core.coupling.units import Axes, Ids, Links, all_fixed, fixed, is_fixed
from pruning_core.errors import SpecError
from pruning_core.trace import Op, Value

Rule = Callable[..., Any]
RULES: dict[str, Rule] = {}
R = TypeVar("R", bound=Rule)


def rule(*names: str) -> Callable[[R], R]:
    """Register a rule for operators by packet name, e.g. `aten.linear` or `mylib.my_op`."""

    def add(fn: R) -> R:
        for name in names:
            if name in RULES:
                raise SpecError(f"a rule for {name} exists", f"{fn.__module__}.{fn.__qualname__}", "remove one of them")
            RULES[name] = fn
        return fn

    return add


def has_rule(name: str) -> bool:
    return name in RULES


@dataclass(frozen=True, slots=True, eq=False)
class Sym:
    """A tensor argument as a rule sees it: the ids of its axes."""

    axes: Axes
    dtype: torch.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(len(ids) for ids in self.axes)

    @property
    def ndim(self) -> int:
        return len(self.axes)


@dataclass(frozen=True, slots=True)
class Choice:
    """A place where only one of several factors of an axis can stay prunable."""

    kind: str  # reshape | groups | norm_groups
    factors: tuple[int, ...]
    options: tuple[int, ...]  # factor positions that could stay, best first
    taken: int


class Steering(Protocol):
    """Decisions from outside the walk (`analysis.Decisions`)."""

    @property
    def choices(self) -> Mapping[tuple[int, int], int]: ...
    @property
    def ties(self) -> frozenset[int]: ...
    @property
    def reshape_axis(self) -> str: ...
    @property
    def group_axis(self) -> str: ...
    @property
    def group_policy(self) -> str: ...


@dataclass(slots=True, eq=False)
class Context:
    """One call, with the links it may add to and the choices it makes."""

    links: Links
    op: Op
    decisions: Steering
    made: dict[tuple[int, int], Choice]
    taken_ids: dict[tuple[int, int], Ids]
    used: frozenset[int]
    positions: Mapping[int, Ids] = field(default_factory=dict)  # value -> the channel numbers that it holds
    ordinal: int = 0
    symbols: list[Sym] = field(default_factory=list)

    @property
    def out_shapes(self) -> list[tuple[int, ...]]:
        return [value.shape for value in self.op.outputs()]

    @property
    def tied(self) -> bool:
        """Equal parts of this split were found to need equal cuts."""
        return self.op.index in self.decisions.ties

    def lock_all(self, reason: str) -> list[Axes]:
        for sym in self.symbols:
            self.links.lock_axes(sym.axes, reason)
        return [all_fixed(shape) for shape in self.out_shapes]

    @property
    def is_decided(self) -> bool:
        """Whether the next choice of this call was made from outside: it holds, even where a cut leaves no choice."""
        return (self.op.index, self.ordinal) in self.decisions.choices

    def is_used(self, value: Value) -> bool:
        """Whether a later call, or the caller, reads this output."""
        return value.index in self.used

    def choose(self, kind: str, factors: tuple[int, ...], options: Sequence[int], ids: Ids) -> int:
        """Which factor of `ids` stays prunable: the decision from outside if there is one, else the best option."""
        key = (self.op.index, self.ordinal)
        self.ordinal += 1
        wanted = {"inner": -1, "outer": -2, "whole": 0}
        first = options[0] if options else -1
        if kind == "reshape" and self.decisions.reshape_axis in wanted:
            first = sorted(options)[max(wanted[self.decisions.reshape_axis], -len(options))] if options else -1
        if kind == "groups" and self.decisions.group_axis == "whole":
            first = 0
        taken = self.decisions.choices.get(key, first)
        self.made[key] = Choice(kind, factors, tuple(options), taken)
        self.taken_ids[key] = ids
        return taken

    def split_factor(self, ids: Ids, factors: tuple[int, ...], kind: str, options: Sequence[int]) -> list[Ids]:
        """Split one axis into factors: one factor stays prunable, its slices across the others are linked.

        Shapes: ids [prod(factors)] -> one id array per factor.
        """
        grid = ids.reshape(factors)
        if is_fixed(ids):
            return [fixed(n) for n in factors]
        varying = [k for k in range(len(factors)) if factors[k] > 1 and (grid != grid.take([0], axis=k)).any()]
        # one varying factor: the others only repeat it, and nothing is to be chosen
        free = len(varying) == 1 and not self.is_decided
        taken = varying[0] if free else self.choose(kind, factors, options, ids)
        if taken < 0:
            self.links.lock(ids, f"no factor of the split {factors} can stay prunable in {self.links.where()}")
            return [fixed(n) for n in factors]
        rows = np.moveaxis(grid, taken, 0).reshape(factors[taken], -1)
        kept = rows[:, 0]
        for column in range(1, rows.shape[1]):
            if (rows[:, column] != kept).any():
                kept = self.links.join(kept, rows[:, column])
        return [kept if k == taken else fixed(n) for k, n in enumerate(factors)]


def symbols(nest: Any) -> list[Sym]:
    if isinstance(nest, Sym):
        return [nest]
    if isinstance(nest, list | tuple):
        return [sym for item in nest for sym in symbols(item)]
    return []


def bind(nest: Any, axes: Callable[[Value], Axes]) -> Any:
    """Arguments with Values replaced by Syms."""
    if isinstance(nest, Value):
        return Sym(axes(nest), nest.dtype)
    if isinstance(nest, list | tuple):
        return tuple([bind(item, axes) for item in nest])
    return nest
