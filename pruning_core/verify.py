"""The retrace must match the plan: the pruned model's calls are walked with the same rules and compared id by id.

Shapes alone do not prove much: a slice with a constant start keeps its length and yet reads shifted channels. So every
pruned tensor starts with the ids that its kept positions have in the original, the rules carry them through the pruned
model's own calls, and every output must carry exactly the ids that the plan predicts for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from pruning_core.calls import Pairing, carries, differences, folds, same_numbers
from pruning_core.coupling.analysis import run_rule
from pruning_core.coupling.rules.index import known_pick
from pruning_core.coupling.rules.table import Choice, Context
from pruning_core.coupling.units import Axes, Ids, Links, all_fixed, fixed, is_fixed
from pruning_core.plan import Rescale
from pruning_core.prediction import Prediction
from pruning_core.trace import Op, Trace

WILD = -1  # an id of the pruned run that takes whatever the plan predicts


@dataclass(frozen=True, slots=True)
class Mismatch:
    """The first call of the pruned model that does not do what the plan predicts."""

    op: int
    kind: str  # shape | ids | argument | constant | tensor | stopped | different
    detail: str
    module: str
    factor: float = 1.0  # for a constant: new / old


class _CheckLinks(Links):
    """Follows ids through the pruned run; nothing is linked any more."""

    def join(self, a: Ids, b: Ids) -> Ids:
        if a is b or is_fixed(a):
            return a
        if len(a) == len(b) and (b == 0).any():
            return np.where(b == 0, b, a)
        return a

    def fresh(self, n: int) -> Ids:
        return np.full(n, WILD, dtype=np.int64)

    def free(self, n: int) -> Ids:
        return fixed(1) if n == 1 else self.fresh(n)

    def is_free(self, ids: Ids) -> bool:
        return bool(len(ids) and ids[0] < 0) or Links.is_free(self, ids)

    def lock(self, ids: Ids, reason: str) -> None: ...
    def read(self, ids: Ids) -> None: ...
    def emit(self, ids: Ids, blocks: int = 1) -> None: ...
    def approximate(self, ids: Ids, reason: str) -> None: ...


def compare(prediction: Prediction, pruned: Trace, rescales: Iterable[Rescale] = ()) -> Mismatch | None:
    """The first disagreement between the pruned run and the plan, or None. `rescales`: constants that are folded."""
    analysis = prediction.analysis
    reference = analysis.trace
    links = _CheckLinks(free_starts=analysis.links.free_starts, free_stops=analysis.links.free_stops)
    pairing = Pairing(prediction, pruned)
    folded = {rescale.call: rescale.factor for rescale in rescales}
    axes: dict[int, Axes] = {}
    for value in pruned.inputs:
        axes[value.index] = all_fixed(value.shape)
    for name, value in pruned.tensors.items():
        axes[value.index] = prediction.axes(reference.tensors[name])
    decisions = analysis.decisions.with_choices({key: choice.taken for key, choice in analysis.choices.items()})
    made: dict[tuple[int, int], Choice] = {}
    taken: dict[tuple[int, int], Ids] = {}
    changed = _changed_constant(reference, pruned)
    for call, rows in analysis.links.balances.items():
        if len(set(prediction.keeps[rows].sum(axis=1).tolist())) > 1:
            return Mismatch(call, "ids", "the groups of a convolution lose different numbers of channels", "")
    for op, new in zip(reference.ops, pruned.ops, strict=False):
        if op.index == changed:
            return Mismatch(op.index, "tensor", "a number that is made into a tensor depends on a size", new.module)
        olds, news = op.outputs(), new.outputs()
        if op.func is not new.func or len(olds) != len(news):
            return Mismatch(op.index, "different", f"{op.name} became {new.name}", new.module)
        found = _same_outputs(prediction, op, new) or _same_arguments(pairing, op, new, reference.real, folded)
        if found is not None:
            return found
        pick = known_pick(op)
        if carries(op) or (pick is not None and pick[1].index in reference.positions):
            for value, wanted_value in zip(news, olds, strict=True):
                pairing.add(wanted_value, value)
                axes.setdefault(value.index, prediction.axes(wanted_value))
            continue
        ctx = Context(links, new, decisions, made, taken, frozenset())
        results = run_rule(ctx, axes)
        for value, wanted_value, ids in zip(news, olds, results, strict=True):
            pairing.add(wanted_value, value)
            wanted = prediction.axes(wanted_value)
            if value.index in axes:  # written in place: it keeps the ids it has
                continue
            for k, (got, want) in enumerate(zip(ids, wanted, strict=True)):
                if got is not want and not ((got == want) | analysis.links.stand_in(got)).all():
                    detail = f"{op.name}: axis {k} of the output holds other channels than planned"
                    return Mismatch(op.index, "ids", detail, new.module)
            axes[value.index] = wanted
    return _same_end(prediction, pairing, pruned)


def _same_end(prediction: Prediction, pairing: Pairing, pruned: Trace) -> Mismatch | None:
    reference = prediction.analysis.trace
    last = len(reference.ops) - 1
    if pruned.error is not None:
        detail = f"{type(pruned.error).__name__}: {str(pruned.error).splitlines()[0] if str(pruned.error) else ''}"
        return Mismatch(min(len(pruned.ops), last), "stopped", detail, pruned.module)
    if len(reference.ops) != len(pruned.ops):
        at = min(len(pruned.ops), len(reference.ops)) - 1
        return Mismatch(at, "different", f"{len(pruned.ops)} calls instead of {len(reference.ops)}", "")
    if len(reference.constants) != len(pruned.constants):
        return Mismatch(last, "tensor", "other numbers are made into tensors", "")
    if [value.shape for value in reference.outputs] != [value.shape for value in pruned.outputs]:
        return Mismatch(last, "shape", "the outputs have other shapes", "")
    if not all(pairing.agrees(old, new) for old, new in zip(reference.outputs, pruned.outputs, strict=True)):
        return Mismatch(last, "different", "other tensors are returned", "")
    if reference.returned != pruned.returned:
        return Mismatch(last, "different", f"{reference.returned} is returned as {pruned.returned}", "")
    return None


def _changed_constant(reference: Trace, pruned: Trace) -> int | None:
    """The call before which the two runs first make different numbers into a tensor."""
    for (at, old), (_, new) in zip(reference.constants, pruned.constants, strict=False):
        if not same_numbers(old, new, real=reference.real):
            return min(at, len(reference.ops) - 1)
    return None


def _same_outputs(prediction: Prediction, op: Op, new: Op) -> Mismatch | None:
    for value, got in zip(op.outputs(), new.outputs(), strict=True):
        want = prediction.shape(value)
        if got.shape != want or got.dtype != value.dtype:
            detail = f"{op.name}: {list(value.shape)} was to become {list(want)} and is {list(got.shape)}"
            return Mismatch(op.index, "shape", detail, new.module)
    return None


def _same_arguments(pairing: Pairing, op: Op, new: Op, real: bool, folded: dict[int, float]) -> Mismatch | None:
    for found in differences(pairing, op, new, real=real):
        factor = folded.get(op.index)
        undone = factor is not None and found.kind == "constant" and folds(found.factor, factor)
        if not undone:
            return Mismatch(op.index, found.kind, found.detail, new.module, found.factor)
    return None
