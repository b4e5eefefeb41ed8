"""Walk a trace with the rules: every value gets its axes of unit ids, and the links between ids are collected."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pruning_core.coupling.computed import Computed
from pruning_core.coupling.muted import Muted
from pruning_core.coupling.rules import RULES
from pruning_core.coupling.rules.elementwise import is_pointwise, pointwise
from pruning_core.coupling.rules.table import Choice, Context, bind, symbols
from pruning_core.coupling.units import Axes, Ids, Links, all_fixed, fixed
from pruning_core.trace import Op, Trace, Value
from pruning_core.tree import is_prunable_dtype

ChoiceKey = tuple[int, int]  # (call, how many choices of this call came before)
OUTPUT = "reaches the model output"  # the only lock that ties nothing to anything
LockKey = tuple[int, int, int]  # (call, operand: inputs first, then outputs; axis)


@dataclass(frozen=True, slots=True)
class Decisions:
    """What steers an analysis from outside: factors to keep, calls to lock, parts to tie."""

    choices: Mapping[ChoiceKey, int] = field(default_factory=dict)
    locks: Mapping[LockKey, str] = field(default_factory=dict)  # an axis of an operand of a call -> why it is locked
    ties: frozenset[int] = frozenset()
    reshape_axis: str = "auto"
    group_axis: str = "within"
    group_policy: str = "sum"
    apart: bool = True  # whether parts of a split axis may have positions of their own, where the policy wants it

    @property
    def tells_apart(self) -> bool:
        """Whether each part of a split axis chooses its own positions."""
        return self.apart and self.group_policy in {"count", "none"}

    def with_choices(self, choices: Mapping[ChoiceKey, int]) -> Decisions:
        return replace(self, choices={**self.choices, **choices})

    def with_locks(self, locks: Mapping[LockKey, str]) -> Decisions:
        return replace(self, locks={**self.locks, **locks})

    def with_ties(self, ops: frozenset[int]) -> Decisions:
        return replace(self, ties=self.ties | ops)


@dataclass(slots=True, eq=False)
class Analysis:
    """Ids of every value, links between them, and the choices that were made on the way."""

    trace: Trace
    links: Links
    axes: dict[int, Axes]  # by value number
    choices: dict[ChoiceKey, Choice]
    choice_ids: dict[ChoiceKey, Ids]
    labels: Ids  # component of each id
    locked: dict[int, str]  # component -> why
    decisions: Decisions
    reads: dict[int, list[Ids]]  # call -> what it sums over or mixes

    def op_axes(self, values: list[Value]) -> list[Axes]:
        return [self.axes[value.index] for value in values]

    def tensor_axes(self, name: str) -> Axes:
        return self.axes[self.trace.tensors[name].index]


def where(op: Op) -> str:
    name = op.name.removeprefix("aten.")
    return f"{name} in {op.module}" if op.module else name


def initial_axes(trace: Trace, links: Links) -> dict[int, Axes]:
    """Parameters, floating buffers and channel numbers start with fresh ids; the rest, and axes of length 1, are fixed."""
    axes: dict[int, Axes] = {}
    for value in trace.inputs:
        axes[value.index] = all_fixed(value.shape)
    for value in trace.tensors.values():
        if is_prunable_dtype(value.dtype) or value.index in trace.positions:
            axes[value.index] = tuple(links.fresh(n) if n > 1 else fixed(n) for n in value.shape)
        else:
            axes[value.index] = all_fixed(value.shape)
    return axes


def used_values(trace: Trace) -> frozenset[int]:
    read = {value.index for op in trace.ops for value in op.inputs()}
    return frozenset(read | {value.index for value in trace.outputs})


def run_rule(ctx: Context, axes: dict[int, Axes]) -> list[Axes]:
    """Axes of the outputs of one call; of an operator without a rule, and of one whose rule gives up, fixed ones."""
    op = ctx.op

    def axes_of(value: Value) -> Axes:
        found = axes.get(value.index)
        if found is None:  # a tensor from outside the module (a global, a closure)
            found = axes[value.index] = all_fixed(value.shape)
        return found

    args, kwargs = bind(op.args, axes_of), {k: bind(v, axes_of) for k, v in op.kwargs.items()}
    ctx.symbols = symbols(args) + symbols(list(kwargs.values()))
    shapes = ctx.out_shapes
    fn = RULES.get(op.name) or (pointwise if shapes and is_pointwise(op.func) else None)
    if fn is None:
        return ctx.lock_all(f"no rule for {op.name}")
    try:
        result = fn(ctx, *args, **kwargs)
    except (TypeError, ValueError, IndexError, KeyError) as exc:
        return ctx.lock_all(f"the rule for {op.name} does not know this form ({type(exc).__name__})")
    found: list[Axes] = result if isinstance(result, list) else [result]
    if len(found) < len(shapes):
        found = found + [all_fixed(shape) for shape in shapes[len(found) :]]
    if any(tuple(len(ids) for ids in a) != s for a, s in zip(found, shapes, strict=False)):
        return ctx.lock_all(f"the rule for {op.name} does not know this form")
    return found[: len(shapes)]


def analyse(trace: Trace, decisions: Decisions) -> Analysis:
    """One walk over the calls with the decisions taken as given."""
    links = Links()
    axes = initial_axes(trace, links)
    used = used_values(trace)
    computed, muted = Computed(trace), Muted()
    for (name, axis), (positions, reason) in trace.pins.items():
        links.lock(axes[trace.tensors[name].index][axis][positions], reason)
    choices: dict[ChoiceKey, Choice] = {}
    choice_ids: dict[ChoiceKey, Ids] = {}
    read_by: dict[int, list[Ids]] = {}
    locks: dict[int, list[tuple[int, int, str]]] = {}
    for (index, operand, axis), reason in decisions.locks.items():
        locks.setdefault(index, []).append((operand, axis, reason))
    for op in trace.ops:
        links.where = lambda op=op: where(op)  # type: ignore[misc]
        ctx = Context(links, op, decisions, choices, choice_ids, used, trace.positions)
        reads = len(links.reads)
        results = run_rule(ctx, axes)
        name, read = op.name.removeprefix("aten."), links.reads[reads:]
        if read:
            read_by[op.index] = read
        if read and not computed.is_read_by(op):
            for ids in read:
                links.approximate(ids, f"{name} counts along the pruned axis")
        elif read and muted.reads_raised(op, axes):
            for ids in read:
                links.approximate(ids, f"{name} runs over values that are not zero where their channel is")
        computed.follow(op)
        for value, found in zip(op.outputs(), results, strict=True):
            known = axes.get(value.index)
            if known is None:
                axes[value.index] = found
            else:  # written in place: what was there and what is there now go together
                for old, new in zip(known, found, strict=True):
                    links.join(old, new)
                axes[value.index] = tuple(new if links.is_free(old) else old for old, new in zip(known, found, strict=True))
        muted.follow(op, axes)
        for operand, axis, reason in locks.get(op.index, ()):
            value = (*op.inputs(), *op.outputs())[operand]
            links.lock(axes[value.index][axis], reason)
    for value in trace.outputs:
        for ids in axes.get(value.index, ()):
            links.lock(ids, OUTPUT)
    labels = links.components()
    while links.tie_uneven(labels):
        labels = links.components()
    return Analysis(trace, links, axes, choices, choice_ids, labels, _locked(links, labels), decisions, read_by)


def _locked(links: Links, labels: Ids) -> dict[int, str]:
    """The first reason that locks each component."""
    locked: dict[int, str] = {int(labels[0]): "fixed"}
    for lock in links.locks:
        for label in np.unique(labels[lock.ids]):
            locked.setdefault(int(label), lock.reason)
    return locked


def resolve(trace: Trace, decisions: Decisions, rounds: int = 6) -> Analysis:
    """Analyse; where the factor that was kept turns out to be locked, try the next one.

    A choice whose every option is locked goes back to its first one.
    """
    best = analyse(trace, decisions)
    tried: dict[ChoiceKey, list[int]] = {}
    for _ in range(rounds):
        flips: dict[ChoiceKey, int] = {}
        for key, choice in best.choices.items():
            if key in decisions.choices or len(choice.options) < 2 or not _is_locked(best, key):
                continue
            seen = tried.setdefault(key, [choice.taken])
            rest = [option for option in choice.options if option not in seen]
            if rest:
                seen.append(rest[0])
                flips[key] = rest[0]
        if not flips:
            break
        candidate = analyse(trace, best.decisions.with_choices(flips))
        if unlocked_size(candidate) > unlocked_size(best):
            best = candidate
        else:  # one by one would cost a walk each: keep those flips whose own ids came free
            freed = {k: v for k, v in flips.items() if k in candidate.choices and not _is_locked(candidate, k)}
            if freed and len(freed) < len(flips):
                candidate = analyse(trace, best.decisions.with_choices(freed))
                if unlocked_size(candidate) > unlocked_size(best):
                    best = candidate
    return best


def _is_locked(analysis: Analysis, key: ChoiceKey) -> bool:
    ids = analysis.choice_ids.get(key)
    if ids is None:
        return False
    live = ids[ids != 0]
    return len(live) > 0 and all(int(label) in analysis.locked for label in np.unique(analysis.labels[live]))


def unlocked_size(analysis: Analysis) -> int:
    """How many entries of the module's tensors lie on an axis position that could go."""
    is_locked = np.zeros(int(analysis.labels.max()) + 1, dtype=bool)
    is_locked[list(analysis.locked)] = True
    total = 0
    for value in analysis.trace.tensors.values():
        axes = analysis.axes[value.index]
        numel = int(np.prod(value.shape)) if value.shape else 1
        for ids in axes:
            if len(ids) > 1 and ids.any():
                total += int((~is_locked[analysis.labels[ids]]).sum()) * (numel // len(ids))
    return total
