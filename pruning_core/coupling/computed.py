"""Which values hold what channels compute. The others (fills, masks, counts) only have the channels' width."""

from __future__ import annotations

from pruning_core.coupling.rules.create import CONSTANT, LIKE
from pruning_core.trace import Op, Trace
from pruning_core.tree import is_prunable_dtype
from pruning_core.writes import is_view

_FILLS = {*CONSTANT, *LIKE}


class Computed:
    """Follows the calls in order. A view holds what its base holds, so that writing into one fills the other."""

    def __init__(self, trace: Trace) -> None:
        self.holding = {value.index for value in trace.tensors.values() if is_prunable_dtype(value.dtype)}
        self.bases: dict[int, int] = {}  # view -> the value whose memory it is

    def is_read_by(self, op: Op) -> bool:
        return any(self._base(value.index) in self.holding for value in op.inputs())

    def follow(self, op: Op) -> None:
        """Floating results of a call on such values are such values, unless only their shape was asked for."""
        inputs = op.inputs()
        for value in op.outputs():
            if not is_prunable_dtype(value.dtype):
                continue
            if inputs and is_view(op.func) and value.index != inputs[0].index:
                self.bases[value.index] = self._base(inputs[0].index)
            elif op.name not in _FILLS and self.is_read_by(op):
                self.holding.add(self._base(value.index))

    def _base(self, index: int) -> int:
        return self.bases.get(index, index)
