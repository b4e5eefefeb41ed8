"""Which values are not zero where their channel is: of exp(y) a muted channel keeps a 1, and a sum over it is no longer
the sum over the kept ones."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch

from pruning_core.coupling.rules.elementwise import is_pointwise, pointwise
from pruning_core.coupling.rules.table import RULES
from pruning_core.coupling.units import Axes, is_fixed
from pruning_core.trace import Op, Value
from pruning_core.tree import is_prunable_dtype
from pruning_core.writes import is_view

SOMETHING = 0.75  # stands for a value that is not known to be zero
_PASSING = {f"aten.{name}" for name in ("cat", "clone", "contiguous", "to", "_to_copy", "dropout", "reshape")}


class Muted:
    """Follows the calls in order. All tensors of the module are zero where their channel is muted."""

    def __init__(self) -> None:
        self.raised: dict[int, float] = {}  # value -> what it is there

    def reads_raised(self, op: Op, axes: Mapping[int, Axes]) -> bool:
        """Whether all that this call has of the channels is not zero where they are muted: nothing takes it out."""
        carrying = [value for value in op.inputs() if _carries(value, axes)]
        return bool(carrying) and all(value.index in self.raised for value in carrying)

    def follow(self, op: Op, axes: Mapping[int, Axes]) -> None:
        """`axes`: of all values up to here, the call's own results among them."""
        if is_elementwise(op):
            number = self._number(op, axes)
        elif is_view(op.func) or op.name in _PASSING:
            number = next((self.raised[value.index] for value in op.inputs() if value.index in self.raised), 0.0)
        else:
            number = 0.0
        for value in op.outputs():
            self.raised.pop(value.index, None)
            if number:
                self.raised[value.index] = number

    def _number(self, op: Op, axes: Mapping[int, Axes]) -> float:
        if not any(_carries(value, axes) for value in op.outputs()):
            return 0.0

        def stand_in(argument: Any) -> Any:
            if isinstance(argument, Value):
                known = self.raised.get(argument.index, 0.0) if _carries(argument, axes) else SOMETHING
                return _StandIn(known, argument.dtype)
            return tuple(map(stand_in, argument)) if isinstance(argument, list | tuple) else argument

        try:
            kwargs = tuple((key, stand_in(value)) for key, value in op.kwargs.items())
            return _result(op.func, tuple(map(stand_in, op.args)), kwargs)
        except TypeError:  # an argument that cannot be a key
            return 0.0


class _StandIn(tuple[float, torch.dtype]):
    """A number that stands for all entries of a tensor."""

    __slots__ = ()

    def __new__(cls, number: float, dtype: torch.dtype) -> _StandIn:
        return super().__new__(cls, (number, dtype))


def is_elementwise(op: Op) -> bool:
    rule = RULES.get(op.name)
    return rule is pointwise or (rule is None and is_pointwise(op.func))


def _carries(value: Value, axes: Mapping[int, Axes]) -> bool:
    return any(not is_fixed(ids) for ids in axes.get(value.index, ()))


@lru_cache(maxsize=4096)
def _result(func: Any, args: tuple[Any, ...], kwargs: tuple[tuple[str, Any], ...]) -> float:
    """What the call gives for these numbers; 0 where it cannot be tried out, as nothing is known then."""

    def number(argument: Any) -> Any:
        if isinstance(argument, _StandIn):
            value, dtype = argument
            return torch.tensor(value, dtype=torch.float64 if is_prunable_dtype(dtype) else dtype)
        return [number(item) for item in argument] if isinstance(argument, tuple) else argument

    try:
        result = func(*map(number, args), **{key: number(value) for key, value in kwargs})
        return float((result[0] if isinstance(result, tuple | list) else result).real)
    except Exception:  # shapes that it insists on, a device
        return 0.0
