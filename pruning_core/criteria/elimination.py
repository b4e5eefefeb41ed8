"""Backward elimination: which channels can go with the least damage that no linear repair mends.

Reference: Hassibi & Stork, Optimal Brain Surgeon, NIPS 1992; Meng et al., OSSCAR, ICML 2024; Kurtic et al., ZipLM,
NeurIPS 2023 (there for columns of a weight; here for channels and several consumers at once).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """One consumer of a group. Shapes: D inputs with a constant last, R outputs times kernel positions.

    gram [D, D] mean of x x^T; weight [D, R], rows already scaled by what an error in each output is worth;
    members [C, P]: the inputs that belong to each channel.
    """

    gram: Tensor
    weight: Tensor
    members: Tensor


STEPS = 256  # at most so many removals; wider groups lose several channels at once


def eliminate(readers: Sequence[Reader], channels: int, ridge: float = 1e-3) -> Tensor:
    """Damage of each channel at the moment of its removal, [C] >= 0, in the units of the readers' outputs squared.

    One channel at a time goes, always the one whose loss, after the best linear repair from the inputs that are left,
    is smallest: tr(W_i^T (H_ii)^-1 W_i) with H the inverse Gram matrix; then W and H are updated. The removals that
    come later cost more, so damages are made to rise along that order.
    """
    states = [_State.of(reader, ridge) for reader in readers]
    damage = torch.zeros(channels, dtype=torch.float64)
    left = torch.ones(channels, dtype=torch.bool)
    at_once = -(-channels // STEPS)
    highest = 0.0
    while bool(left.any()):
        costs = torch.zeros(channels, dtype=torch.float64)
        for state in states:
            costs += state.costs()
        costs[~left] = torch.inf
        going = costs.argsort(stable=True)[: min(at_once, int(left.sum()))]
        for channel in going.tolist():
            highest = max(highest, float(costs[channel]))
            damage[channel] = highest
        left[going] = False
        for state in states:
            state.remove(going)
    return damage


@dataclass(slots=True, eq=False)
class _State:
    inverse: Tensor  # [D, D] H
    inner: Tensor  # [D, D] W W^T, all that the costs need of the weight
    members: Tensor  # [C, P]

    @classmethod
    def of(cls, reader: Reader, ridge: float) -> _State:
        gram = reader.gram.double()
        scale = gram.diagonal().mean().clamp_min(1e-30)
        gram = gram + torch.eye(len(gram), dtype=torch.float64) * ridge * scale
        weight = reader.weight.double()
        return cls(torch.cholesky_inverse(torch.linalg.cholesky(gram)), weight @ weight.T, reader.members)

    def costs(self) -> Tensor:
        """[C]: what each channel costs now. Meaningless for one that is gone."""
        if self.members.shape[1] == 1:
            at = self.members[:, 0]
            return self.inner.diagonal()[at] / self.inverse.diagonal()[at]
        rows = self.members[:, :, None]
        blocks, inner = self.inverse[rows, self.members[:, None]], self.inner[rows, self.members[:, None]]
        return torch.linalg.solve(blocks, inner).diagonal(dim1=1, dim2=2).sum(dim=1)

    def remove(self, channels: Tensor) -> None:
        """Repair the others as well as they can; then the inverse is that of the Gram matrix without these inputs."""
        at = self.members[channels].flatten()
        columns = self.inverse[:, at]
        gain = torch.linalg.solve(self.inverse[at][:, at], columns.T).T  # [D, P]
        cross = self.inner[:, at] @ gain.T
        self.inner = self.inner - cross - cross.T + gain @ self.inner[at][:, at] @ gain.T
        self.inverse = self.inverse - gain @ columns.T
        for matrix in (self.inverse, self.inner):
            matrix[at] = 0
            matrix[:, at] = 0
        self.inverse[at, at] = 1
