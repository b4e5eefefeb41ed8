"""The rows that a layer learns from: inputs and wanted answers at sampled positions, every fifth one held out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pruning_core.compensation.kernel import regress_rows
from pruning_core.compensation.regression import Rectified, Solution, regress
from pruning_core.observe.gram import Gram

HELD_OUT = 5  # every fifth row chooses the ridge and nothing else
AT_ONCE = 2**23  # entries that are gathered before they are added to the sums: few large products, little scattered memory


class Rows:
    """Rows of a layer, those to learn from and those held out: as they are, as sums, or both.

    slope [O] of all groups: what multiplies the answers before the ReLU. `whole`: the rows themselves are solved over.
    """

    def __init__(self, groups: int, slope: Tensor, *, relu: bool, whole: bool) -> None:
        self.slope, self.relu, self.whole = slope.view(groups, 1, -1), relu, whole
        self.learn, self.check = Gram(), Gram()  # behind a ReLU the rows are checked themselves
        self.parts: tuple[list[Rectified], list[Rectified]] = ([], [])
        self.seen = 0
        self._span: tuple[Tensor, Tensor] | None = None  # [G, K] lowest and highest of each input
        self._new = 0  # parts that are not in the sums yet, of both kinds
        self._gathered = 0  # their entries

    def add(self, x: Tensor, y: Tensor, base: Tensor) -> None:
        """x [G, N, K], y [G, N, O], base [G, N or 1, O]"""
        held = (torch.arange(x.shape[1]) + self.seen) % HELD_OUT == HELD_OUT - 1
        self.seen += x.shape[1]
        low, high = x.aminmax(dim=1)
        self._span = (low, high) if self._span is None else (low.minimum(self._span[0]), high.maximum(self._span[1]))
        for kept, part in zip(self.parts, (~held, held), strict=True):
            own_base = base[:, part] if base.shape[1] > 1 else base
            kept.append(Rectified.of(x[:, part], y[:, part], self.slope, own_base))
        self._new += 1
        self._gathered += x.numel()
        if self._gathered >= AT_ONCE:
            self._sum_up()

    @property
    def constant(self) -> int:
        """How many inputs are the same in all rows, but for rounding."""
        if self._span is None:
            return 0
        low, high = self._span
        return int((high - low <= 1e-5 * low.abs().maximum(high.abs())).sum())

    def _sum_up(self) -> None:
        if self.whole or not self._new:
            return
        learn, check = self.parts
        new = _joined(learn[-self._new :])
        self.learn.add(new.x, new.y)
        if not self.relu:
            new = _joined(check[-self._new :])
            self.check.add(new.x, new.y)
            learn.clear()
            check.clear()
        self._new = self._gathered = 0

    def solve(self, weight: Tensor, constant: Tensor | None) -> Solution | None:
        """The regression that starts at weight [G, K, O] and constant [G, 1, O]; None where there is too little data."""
        if self.seen < HELD_OUT:
            return None
        if self.whole:
            learn, check = map(_joined, self.parts)
            for parts in self.parts:
                parts.clear()
            return regress_rows(learn, check, weight.float(), constant, relu=self.relu)
        self._sum_up()
        start = weight.double() if constant is None else torch.cat([weight.double(), constant.double()], dim=1)
        return (
            regress(self.learn, self.parts[1], start, self.parts[0]) if self.relu else regress(self.learn, self.check, start)
        )


def _joined(parts: Sequence[Rectified]) -> Rectified:
    limit = parts[0].limit if parts[0].limit.shape[1] == 1 else torch.cat([part.limit for part in parts], dim=1)
    x, signed = (torch.cat(tensors, dim=1) for tensors in zip(*((part.x, part.signed) for part in parts), strict=True))
    return Rectified(x, signed, parts[0].slope, limit)
