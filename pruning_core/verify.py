"""The retrace must match the plan: the pruned model's calls are walked with the same rules and compared id by id.

Shapes alone do not prove much: a slice with a constant start keeps its length and yet reads shifted channels. So every
pruned tensor starts with the ids that its kept positions have in the original, the rules carry them through the pruned
model's own calls, and every output must carry exactly the ids that the plan predicts for it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from pruning_core.arguments import new_arguments
from pruning_core.coupling.analysis import run_rule
from pruning_core.coupling.rules.elementwise import is_pointwise
from pruning_core.coupling.rules.table import Choice, Context
from pruning_core.coupling.units import Axes, Ids, Links, all_fixed, fixed, is_fixed
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
    def emit(self, ids: Ids) -> None: ...
    def approximate(self, ids: Ids, reason: str) -> None: ...


def compare(prediction: Prediction, pruned: Trace, undone: frozenset[int] = frozenset()) -> Mismatch | None:
    """The first disagreement between the pruned run and the plan, or None. `undone`: calls whose constant is folded."""
    analysis = prediction.analysis
    reference = analysis.trace
    links = _CheckLinks(free_starts=analysis.links.free_starts, free_stops=analysis.links.free_stops)
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
        if op.func is not new.func or len(op.outputs()) != len(new.outputs()):
            return Mismatch(op.index, "different", f"{op.name} became {new.name}", new.module)
        found = _same_outputs(prediction, op, new)
        if found is not None:
            return found
        found = _same_numbers(prediction, op, new)
        if found is not None:
            return found
        drift = None if op.index in undone else constant_drift(op, new)
        if drift is not None:
            return Mismatch(op.index, "constant", f"{op.name}: a constant changed by {drift:.6g}", new.module, drift)
        ctx = Context(links, new, decisions, made, taken, frozenset())
        results = run_rule(ctx, axes)
        for value, wanted_value, ids in zip(new.outputs(), op.outputs(), results, strict=True):
            wanted = prediction.axes(wanted_value)
            if value.index in axes:  # written in place: it keeps the ids it has
                continue
            for k, (got, want) in enumerate(zip(ids, wanted, strict=True)):
                if got is not want and not ((got == want) | analysis.links.stand_in(got)).all():
                    detail = f"{op.name}: axis {k} of the output holds other channels than planned"
                    return Mismatch(op.index, "ids", detail, new.module)
            axes[value.index] = wanted
    if pruned.error is not None:
        at = min(len(pruned.ops), len(reference.ops) - 1)
        detail = f"{type(pruned.error).__name__}: {str(pruned.error).splitlines()[0] if str(pruned.error) else ''}"
        return Mismatch(at, "stopped", detail, pruned.module)
    if len(reference.ops) != len(pruned.ops):
        at = min(len(pruned.ops), len(reference.ops)) - 1
        return Mismatch(at, "different", f"{len(pruned.ops)} calls instead of {len(reference.ops)}", "")
    outputs = [value.shape for value in reference.outputs]
    if outputs != [value.shape for value in pruned.outputs]:
        return Mismatch(len(reference.ops) - 1, "shape", "the outputs have other shapes", "")
    return None


def _changed_constant(reference: Trace, pruned: Trace) -> int | None:
    """The call before which the two runs first make different numbers into a tensor."""
    for (at, old), (_, new) in zip(reference.constants, pruned.constants, strict=False):
        if old != new and not reference.real:
            return min(at, len(reference.ops) - 1)
    return None


def _same_outputs(prediction: Prediction, op: Op, new: Op) -> Mismatch | None:
    for value, got in zip(op.outputs(), new.outputs(), strict=True):
        want = prediction.shape(value)
        if got.shape != want:
            detail = f"{op.name}: {list(value.shape)} was to become {list(want)} and is {list(got.shape)}"
            return Mismatch(op.index, "shape", detail, new.module)
    return None


def _same_numbers(prediction: Prediction, op: Op, new: Op) -> Mismatch | None:
    """Numbers that show neither in shapes nor in ids: how many groups, and which position of an axis is picked out."""
    if "group_norm" not in op.name and not op.name.startswith("aten.conv") and op.name != "aten.select":
        return None
    wanted = new_arguments(prediction, op)
    for position, value in wanted.items():
        got = new.args[position] if position < len(new.args) else None
        if isinstance(value, int) and got != value:
            return Mismatch(
                op.index, "argument", f"{op.name}: {op.args[position]} was to become {value} and is {got}", new.module
            )
    for position, value in enumerate(op.args):
        if isinstance(value, int) and position not in wanted and position < len(new.args) and new.args[position] != value:
            return Mismatch(op.index, "argument", f"{op.name}: {value} became {new.args[position]}", new.module)
    return None


def constant_drift(op: Op, new: Op) -> float | None:
    """new / old of a constant that differs between the runs: a number computed from a size that the cut changed."""
    if op.name == "aten.scaled_dot_product_attention":
        old_scale, new_scale = _attention_scale(op), _attention_scale(new)
        return None if math.isclose(old_scale, new_scale, rel_tol=1e-9) else new_scale / old_scale
    if not (is_pointwise(op.func) or op.name in {"aten.full", "aten.new_full", "aten.full_like", "aten.scalar_tensor"}):
        return None
    for old, now in zip((*op.args, *op.kwargs.values()), (*new.args, *new.kwargs.values()), strict=False):
        numbers = isinstance(old, int | float) and isinstance(now, int | float) and not isinstance(old, bool)
        if numbers and old != now and not math.isclose(old, now, rel_tol=1e-9):
            return now / old if old else math.inf
    return None


def _attention_scale(op: Op) -> float:
    scale = op.kwargs.get("scale")
    return float(scale) if scale is not None else 1 / math.sqrt(op.args[0].shape[-1])
