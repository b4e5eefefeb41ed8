"""One call of the pruned run against the call that it stands for: the same tensors go in, and the planned numbers.

Every argument is compared. Two kinds alone may differ: sizes that the output's shape shows (it is compared anyway), and
the positions, counts and groups that `arguments.py` predicts. Any other number that differs was computed from a size.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch

from pruning_core.arguments import LAYOUT, PLACES, SIZES, planned, same_places
from pruning_core.coupling.rules.elementwise import is_pointwise
from pruning_core.prediction import Prediction
from pruning_core.trace import Op, Trace, Value

_EXACT, _MEASURED = 1e-9, 1e-4  # of numbers from Python, and of those that a run on real values read off them
_SCALING = {f"aten.{name}" for name in ("full", "new_full", "full_like", "scalar_tensor", "baddbmm", "addmm", "addbmm")}
_PLAIN = "linear conv1d conv2d conv3d batch_norm layer_norm rms_norm relu relu_ silu silu_ hardswish hardswish_ dropout"
_CARRYING = {f"aten.{name}" for name in _PLAIN.split()}
ATTENTION = "aten.scaled_dot_product_attention"


@dataclass(frozen=True, slots=True)
class Difference:
    """An argument that is not what the plan says."""

    kind: str  # argument | constant
    detail: str
    factor: float = 1.0  # for a constant: new / old


class Pairing:
    """Which value of the pruned run stands for which of the original's: by names first, then call by call."""

    def __init__(self, prediction: Prediction, pruned: Trace) -> None:
        self.prediction = prediction
        self._partner: dict[int, int] = {}
        reference = prediction.analysis.trace
        for name, value in pruned.tensors.items():
            self.add(reference.tensors[name], value)
        for old, new in zip(reference.inputs, pruned.inputs, strict=True):
            self.add(old, new)

    def add(self, old: Value, new: Value) -> None:
        self._partner.setdefault(old.index, new.index)

    def agrees(self, old: Value, new: Value) -> bool:
        """Whether `new` is the partner. A tensor from outside the module is paired where it is first met."""
        known = self._partner.get(old.index)
        if known is None:
            self.add(old, new)
            return new.shape == self.prediction.shape(old)
        return known == new.index


def differences(pairing: Pairing, op: Op, new: Op, *, real: bool) -> Iterator[Difference]:
    """The arguments that are neither the same nor the planned ones."""
    args, others = op.args, new.args
    if len(args) != len(others) or op.name in PLACES:
        args, others = _filled(op), _filled(new)
    skipped, plan = SIZES.get(op.name, ()), {}
    if op.name in PLACES:
        skipped = PLACES[op.name]
        if not same_places(pairing.prediction, op, args, others):
            yield Difference("argument", f"{op.name} reads other positions than planned")
    elif not skipped:
        plan = planned(pairing.prediction, op)
    for position, (one, other) in enumerate(zip(args, others, strict=True)):
        if position not in skipped:
            yield from _compared(pairing, op, plan.get(position, one), other, one, real)
    for key in dict.fromkeys((*op.kwargs, *new.kwargs)):
        if key not in LAYOUT and not (key == "scale" and op.name == ATTENTION):
            one = _keyword(op, key)
            yield from _compared(pairing, op, one, _keyword(new, key), one, real)
    if op.name == ATTENTION:
        yield from _compared(pairing, op, attention_scale(op), attention_scale(new), 0.0, real)


def carries(op: Op) -> bool:
    """Whether the ids of the outputs follow from those of the inputs alone, by no argument that could pick others."""
    return op.name in _CARRYING or is_pointwise(op.func)


def _compared(pairing: Pairing, op: Op, want: Any, got: Any, old: Any, real: bool) -> Iterator[Difference]:
    if isinstance(want, Value):
        if not isinstance(got, Value) or not pairing.agrees(want, got):
            yield Difference("argument", f"{op.name} reads another tensor than planned")
    elif isinstance(want, list | tuple) and isinstance(got, list | tuple) and len(want) == len(got):
        before = old if isinstance(old, list | tuple) and len(old) == len(want) else want
        for one, other, was in zip(want, got, before, strict=True):
            yield from _compared(pairing, op, one, other, was, real)
    elif isinstance(want, int | float) and isinstance(got, int | float):
        if not same_numbers(want, got, real=real):
            yield _number(op, want, got, old)
    elif want is not got and want != got and not isinstance(want, torch.Generator):
        yield Difference("argument", f"{op.name}: {want} became {got}")


def _number(op: Op, want: float, got: float, old: Any) -> Difference:
    scales = is_pointwise(op.func) or op.name in _SCALING or op.name == ATTENTION
    if scales and not isinstance(want, bool):
        factor = got / want if want else math.inf
        return Difference("constant", f"{op.name}: a constant changed by {factor:.6g}", factor)
    was = f"{old} was to become {want}" if old != want else f"{want} was to stay"
    return Difference("argument", f"{op.name}: {was} and is {got}")


def _filled(op: Op) -> tuple[Any, ...]:
    """All positional arguments of a call, those left out with their defaults."""
    schema = [a for a in op.func._schema.arguments if not a.kwarg_only]
    return (*op.args, *(a.default_value for a in schema[len(op.args) :]))


def _keyword(op: Op, key: str) -> Any:
    if key in op.kwargs:
        return op.kwargs[key]
    return next((a.default_value for a in op.func._schema.arguments if a.name == key), None)


def attention_scale(op: Op) -> float:
    scale = op.kwargs.get("scale")
    return float(scale) if scale is not None else 1 / math.sqrt(op.args[0].shape[-1])


def same_numbers(one: Any, other: Any, *, real: bool) -> bool:
    """Whether two constants are the same number, or the same numbers."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return len(one) == len(other) and all(same_numbers(a, b, real=real) for a, b in zip(one, other, strict=True))
    if isinstance(one, float | int) and isinstance(other, float | int):
        both_nan = one != one and other != other
        exact = isinstance(one, int) and isinstance(other, int)
        return one == other or both_nan or (not exact and math.isclose(one, other, rel_tol=_MEASURED if real else _EXACT))
    return bool(one == other)


def folds(drift: float, factor: float) -> bool:
    """Whether scaling weights by `factor` undoes a constant that changed by `drift` and multiplies, or divides."""
    return math.isclose(drift, factor, rel_tol=_EXACT) or math.isclose(drift, 1 / factor, rel_tol=_EXACT)


def constant_drift(op: Op, new: Op) -> float | None:
    """new / old of a constant that differs between the runs: a number computed from a size that the cut changed."""
    if op.name == ATTENTION:
        pairs = [(attention_scale(op), attention_scale(new))]
    else:
        pairs = list(zip((*op.args, *op.kwargs.values()), (*new.args, *new.kwargs.values()), strict=False))
    for old, now in pairs:
        if isinstance(old, int | float) and isinstance(now, int | float) and not same_numbers(old, now, real=False):
            return now / old if old else math.inf
    return None
