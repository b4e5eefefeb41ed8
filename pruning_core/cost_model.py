"""What a choice of kept channels costs, without cutting anything: each call's cost from the widths that it would see."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
from numpy.typing import NDArray

from pruning_core.cost import op_macs
from pruning_core.coupling.analysis import Analysis
from pruning_core.coupling.units import Ids, is_fixed
from pruning_core.latency_grid import Axis, corners
from pruning_core.latency_table import LatencyTable, timed_values
from pruning_core.trace import Op, Value

Counts = NDArray[np.int64]  # kept channels by group
COSTS = ("macs", "params", "size_mb", "latency_ms")
MB = 1e6


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """Components of which one count says how many stay: a channel group, or several that keep equal shares."""

    labels: Ids
    channels: int
    lot: int = 1  # channels that go at once


class CostModel:
    """Costs of one forward at the example inputs, as functions of the kept channels of each group.

    macs: multiply-accumulates; params: entries of parameters; size_mb: bytes of all tensors / 10^6; latency_ms: summed
    over the calls by a table measured on this machine.
    """

    def __init__(
        self, analysis: Analysis, groups: Sequence[Counted], parameters: frozenset[str], table: LatencyTable | None
    ) -> None:
        self.groups = tuple(groups)
        self.table = table
        self._analysis = analysis
        self._group_of = np.full(int(analysis.labels.max()) + 1, -1, dtype=np.int64)
        for number, group in enumerate(groups):
            self._group_of[group.labels] = number
        self._axes: dict[int, tuple[int, tuple[tuple[int, float], ...]]] = {}
        self._alive: list[Ids] = []
        self._terms: dict[str, list[_Term]] = {name: [] for name in COSTS}
        for op in analysis.trace.ops:
            if op_macs(op):
                self._terms["macs"].append(_Term(op, self._touched(op)))
            if table is not None and op_macs(op):  # calls without work are free
                self._terms["latency_ms"].append(_Term(op, self._touched(op)))
        for name, value in analysis.trace.tensors.items():
            self._terms["size_mb"].append(_Term(value, self._groups_of(value)))
            if name in parameters:
                self._terms["params"].append(_Term(value, self._groups_of(value)))
        self.full: Counts = np.array([group.channels for group in groups], dtype=np.int64)

    def total(self, name: str, counts: Counts) -> float:
        return sum(self._cost(name, term, counts) for term in self._terms[name])

    def part(self, name: str, counts: Counts, group: int) -> float:
        """The share of the total that depends on one group."""
        return sum(self._cost(name, term, counts) for term in self._terms[name] if group in term.groups)

    def neighbours(self, group: int) -> frozenset[int]:
        """The groups whose cost depends on this one, itself included."""
        found: set[int] = {group}
        for name in ("macs", "size_mb"):
            for term in self._terms[name]:
                if group in term.groups:
                    found |= term.groups
        return frozenset(found)

    def _cost(self, name: str, term: _Term, counts: Counts) -> float:
        key = tuple([int(counts[g]) for g in term.ordered])
        known = term.known.get(key)
        if known is None:
            known = term.known[key] = self._compute(name, term.of, counts)
        return known

    def _compute(self, name: str, of: Op | Value, counts: Counts) -> float:
        def shape(value: Value) -> tuple[int, ...]:
            return tuple([self._size(ids, counts) for ids in self._analysis.axes[value.index]])

        if isinstance(of, Value):
            return prod(shape(of)) * (of.dtype.itemsize / MB if name == "size_mb" else 1)
        if name == "macs":
            return float(op_macs(of, shape))
        assert self.table is not None
        axes = [[self._axis(ids) for ids in self._analysis.axes[value.index]] for value in timed_values(of)]
        return self.table.milliseconds(of, corners(axes, counts, self.groups))

    def _axis(self, ids: Ids) -> Axis:
        return Axis(len(ids)) if is_fixed(ids) else Axis(*self._parts(ids))

    def _size(self, ids: Ids, counts: Counts) -> int:
        if is_fixed(ids):
            return len(ids)
        fixed, parts = self._parts(ids)
        return round(fixed + sum(per_channel * int(counts[g]) for g, per_channel in parts))

    def _parts(self, ids: Ids) -> tuple[int, tuple[tuple[int, float], ...]]:
        """(positions that stay, [(group, positions per channel)]) of an axis."""
        key = id(ids)
        if key not in self._axes:
            owner = self._group_of[self._analysis.labels[ids]]
            owner = np.where(ids == 0, -1, owner)
            numbers, positions = np.unique(owner[owner >= 0], return_counts=True)
            parts = [(int(g), int(n) / self.groups[int(g)].channels) for g, n in zip(numbers, positions, strict=True)]
            self._axes[key] = int((owner < 0).sum()), tuple(parts)
            self._alive.append(ids)
        return self._axes[key]

    def _groups_of(self, value: Value) -> frozenset[int]:
        axes = self._analysis.axes.get(value.index, ())
        return frozenset(g for ids in axes if not is_fixed(ids) for g, _ in self._parts(ids)[1])

    def _touched(self, op: Op) -> frozenset[int]:
        return frozenset().union(*(self._groups_of(value) for value in (*op.inputs(), *op.outputs())))


class _Term:
    """A call or a tensor, the groups that its cost of one kind depends on, and what is known of that so far."""

    __slots__ = ("groups", "known", "of", "ordered")

    def __init__(self, of: Op | Value, groups: frozenset[int]) -> None:
        self.of, self.groups = of, groups
        self.ordered = sorted(groups)
        self.known: dict[tuple[int, ...], float] = {}


def targets_of(budget: Mapping[str, float | str], model: CostModel) -> dict[str, float]:
    """Absolute targets: "2.0x" means the full cost divided by 2."""
    return {
        name: model.total(name, model.full) / float(value.rstrip("xX")) if isinstance(value, str) else float(value)
        for name, value in budget.items()
    }
