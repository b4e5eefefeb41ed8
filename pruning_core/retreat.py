"""Plan less, where the pruned run disagrees with the plan and no attribute explains it: even widths, ties, locks."""

from __future__ import annotations

from pruning_core.coupling.analysis import Decisions
from pruning_core.coupling.units import is_fixed
from pruning_core.draft import Draft
from pruning_core.even import Even, joined
from pruning_core.mend import SPLITS, ops_of, size_changes
from pruning_core.prediction import Prediction
from pruning_core.trace import Op, Trace


def retreat(draft: Draft, decisions: Decisions) -> Decisions:
    """Plan less: tie the parts of a split, or lock the axes whose cut the code did not follow, here and in twin calls."""
    assert draft.mismatch is not None
    trace = draft.analysis.trace
    op = trace.ops[draft.mismatch.op]
    twins = twin_ops(draft, op)
    if op.name in SPLITS and op.index not in decisions.ties:
        return decisions.with_ties(frozenset(twins))
    reason = f"its code does not follow a cut: {draft.mismatch.detail}"
    locks: dict[tuple[int, int, int], str] = {}
    for index in twins:
        for operand, value in enumerate((*trace.ops[index].inputs(), *trace.ops[index].outputs())):
            for axis, (old, new) in enumerate(zip(value.shape, draft.prediction.shape(value), strict=True)):
                if old != new and (index, operand, axis) not in decisions.locks:
                    locks[(index, operand, axis)] = reason
    if locks:
        return decisions.with_locks(locks)
    return _lock_before(draft, decisions, op, reason)


def _lock_before(draft: Draft, decisions: Decisions, op: Op, reason: str) -> Decisions:
    """Nothing of this call was cut, so the cause lies before it: lock the nearest call before it that was."""
    trace = draft.analysis.trace
    for index in range(op.index, -1, -1):
        locks = {
            (twin, operand, axis): reason
            for twin in twin_ops(draft, trace.ops[index])
            for operand, value in enumerate((*trace.ops[twin].inputs(), *trace.ops[twin].outputs()))
            for axis, (old, new) in enumerate(zip(value.shape, draft.prediction.shape(value), strict=True))
            if old != new and (twin, operand, axis) not in decisions.locks
        }
        if locks:
            return decisions.with_locks(locks)
    return lock_everything(trace, decisions)


def uneven(draft: Draft) -> Even:
    """Groups near the disagreement, and near its like in twin modules, that had a width in common and have it no more.

    Code that reads one layer's width off another's (heads * head size = model width) wants them equal.
    """
    assert draft.mismatch is not None
    trace = draft.analysis.trace
    path = draft.mismatch.module or trace.ops[draft.mismatch.op].module
    return joined(names for twin in _twin_paths(trace, path) for names in _uneven_near(draft, ops_of(trace, twin)))


def _uneven_near(draft: Draft, ops: list[Op]) -> list[frozenset[str]]:
    near = {
        int(label)
        for op in ops
        for value in (*op.inputs(), *op.outputs())
        for ids in draft.analysis.axes.get(value.index, ())
        if not is_fixed(ids)
        for label in set(draft.analysis.labels[ids].tolist())
    }
    shares: dict[int, dict[str, float]] = {}
    for group in draft.groups:
        if group.name in draft.kept and near & set(group.labels.tolist()):
            for width in group.widths:
                shares.setdefault(width, {})[group.name] = len(draft.kept[group.name]) / group.channels
    return [frozenset(kept) for kept in shares.values() if len(set(kept.values())) > 1]


def _twin_paths(trace: Trace, path: str) -> list[str]:
    """The modules, this one among them, that make the same calls."""
    calls: dict[str, list[object]] = {}
    for op in trace.ops:
        parts = op.module.split(".") if op.module else []
        for depth in range(len(parts) + 1):
            calls.setdefault(".".join(parts[:depth]), []).append(op.func)
    return [other for other, mine in calls.items() if mine == calls.get(path)] or [path]


def lock_everything(trace: Trace, decisions: Decisions) -> Decisions:
    return decisions.with_locks(
        {
            (op.index, operand, axis): "no cut of this model could be verified"
            for op in trace.ops
            for operand, value in enumerate((*op.inputs(), *op.outputs()))
            for axis in range(len(value.shape))
        }
    )


def twin_ops(draft: Draft, op: Op) -> list[int]:
    """The same call in modules that make the same calls and see the same sizes change."""
    by_module: dict[str, list[Op]] = {}
    for o in draft.analysis.trace.ops:
        by_module.setdefault(o.module, []).append(o)
    mine = by_module[op.module]
    place, calls = mine.index(op), [o.func for o in mine]
    changes = _change_set(draft.prediction, mine)
    return [
        theirs[place].index
        for theirs in by_module.values()
        if [o.func for o in theirs] == calls and (theirs is mine or _change_set(draft.prediction, theirs) == changes)
    ]


def _change_set(prediction: Prediction, ops: list[Op]) -> set[tuple[int, int]]:
    changes = size_changes(prediction, ops)
    return {(old, new) for old, options in changes.items() for new in options}
