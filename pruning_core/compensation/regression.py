"""Ridge regression from streamed second moments, and its refinement where a ReLU follows.

Shape legend: G groups, N rows, K inputs (S = K + 1 with the constant), O outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.observe.gram import Gram

RIDGES = (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)  # shares of the mean diagonal of the Gram matrix
ROUNDS = 4  # of the refinement behind a ReLU
_CONSTANT = 1e-6  # of the ridge: the constant is hardly held back


@dataclass(frozen=True, slots=True, eq=False)
class Rectified:
    """Rows whose answers pass a ReLU: z = slope * y + base, then max(z, 0).

    z is positive where sign * y lies above `limit`; answers are kept with that sign, so that it takes few passes over them.
    """

    x: Tensor  # [G, N, K]
    signed: Tensor  # [G, N, O] wanted, times sign
    slope: Tensor  # [G, 1, O]
    limit: Tensor  # [G, N or 1, O]

    @classmethod
    def of(cls, x: Tensor, y: Tensor, slope: Tensor, base: Tensor) -> Rectified:
        """y [G, N, O] wanted, base [G, N or 1, O]."""
        return cls(x, y * slope.sign(), slope, -base / slope.abs())

    @property
    def y(self) -> Tensor:
        """[G, N, O] wanted."""
        return self.signed * self.slope.sign()


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """weight [G, S or K, O]; errors are sums of squares over the held-out rows, `energy` that of the answers."""

    weight: Tensor
    ridge: float  # infinite where the weights stayed as they were
    before: float
    after: float
    energy: float


def regress(learn: Gram, check: Gram | Sequence[Rectified], start: Tensor, rectified: Sequence[Rectified] = ()) -> Solution:
    """The weights nearest to `start` [G, S or K, O] that explain the rows of `learn`; the ridge is chosen on `check`.

    Behind a ReLU, `rectified` are the rows of `learn` and `check` are rows, too. There, answers below zero are free to be
    any value below zero: alternately, those targets are set to what the weights answer, and the weights are solved for again
    with the same factorised matrix. The sums of `learn` are borrowed: they are afterwards what they were.
    """
    size = start.shape[1]
    gram, gap = learn.xx[:, :size, :size], learn.xy[:, :size] - learn.xx[:, :size, :size] @ start
    best: tuple[float, float, Tensor] | None = None
    for ridge in RIDGES:
        factor = _factor(gram, _ridge(learn, size, ridge))
        if factor is None:
            continue
        weight = start + torch.cholesky_solve(gap, factor)
        del factor  # the largest that there is
        error = squared_error(check, weight) if isinstance(check, Gram) else sum(_plain_gap(rows, weight) for rows in check)
        if best is None or error < best[0]:
            best = (error, ridge, weight)
    before, energy = _checked(check, start), _checked(check, None)
    if best is None:
        return Solution(start, float("inf"), before, before, energy)
    _, ridge, weight = best
    if rectified:
        factor = _factor(gram, _ridge(learn, size, ridge))
        assert factor is not None
        for _ in range(ROUNDS):
            cross = sum((_cross(rows, weight) for rows in rectified), torch.zeros_like(start))
            weight = start + torch.cholesky_solve(cross - gram @ start, factor)
    after = _checked(check, weight)
    if not after < before:
        return Solution(start, float("inf"), before, before, energy)
    return Solution(weight, ridge, before, after, energy)


def _checked(check: Gram | Sequence[Rectified], weight: Tensor | None) -> float:
    """Summed squared error of weights, behind the ReLU for rows; the wanted answers' energy where none are given."""
    if isinstance(check, Gram):
        return float(check.yy.sum()) if weight is None else squared_error(check, weight)
    return sum(_rectified_gap(rows, None if weight is None else _answers(rows, weight)) for rows in check)


def _factor(gram: Tensor, ridge: Tensor) -> Tensor | None:
    """The Cholesky factor of the matrix with `ridge` [G, size] on its diagonal; None where rounding leaves none.

    The diagonal is put back: a copy of the matrix may take hundreds of megabytes.
    """
    diagonal = gram.diagonal(dim1=1, dim2=2)
    before = diagonal.clone()
    diagonal += ridge
    factor, failed = torch.linalg.cholesky_ex(gram)
    diagonal.copy_(before)
    return None if bool(failed.any()) else factor


def _ridge(learn: Gram, size: int, ridge: float) -> Tensor:
    """[G, size], of the diagonal."""
    diagonal = learn.xx.diagonal(dim1=1, dim2=2)
    inputs = diagonal.shape[1] - 1
    shape = torch.ones(size, dtype=torch.float64)
    shape[inputs:] = _CONSTANT
    return ridge * diagonal[:, :inputs].mean(dim=1, keepdim=True).clamp_min(1e-30) * shape


def squared_error(check: Gram, weight: Tensor) -> float:
    """Summed over all rows and outputs, for weights [G, S or K, O]."""
    size = weight.shape[1]
    quadratic = (weight * (check.xx[:, :size, :size] @ weight)).sum()
    return max(float(quadratic - 2 * (weight * check.xy[:, :size]).sum() + check.yy.sum()), 0.0)


def _answers(rows: Rectified, weight: Tensor) -> Tensor:
    """Signed y [G, N, O] of the weights."""
    signed = (weight * rows.slope.sign()).float()
    found = rows.x @ signed[:, : rows.x.shape[2]]
    return found.add_(signed[:, -1:]) if weight.shape[1] > rows.x.shape[2] else found


def _plain_gap(rows: Rectified, weight: Tensor) -> float:
    """Summed squared error of the answers before the ReLU."""
    gap = _answers(rows, weight).sub_(rows.signed)
    return float(torch.linalg.vector_norm(gap, dim=1, dtype=torch.float64).square().sum())


def with_free(rows: Rectified, answers: Tensor) -> Tensor:
    """The wanted y [G, N, O]; where z lies below zero it is free, and what the answers y are there, below zero, will do."""
    sign = rows.slope.sign()
    return _with_free(rows, answers * sign) * sign


def _with_free(rows: Rectified, signed: Tensor) -> Tensor:
    below = torch.minimum(signed, rows.limit)
    return torch.where(rows.signed > rows.limit, rows.signed.to(below.dtype), below)


def _cross(rows: Rectified, weight: Tensor) -> Tensor:
    """x^T y' with y' the wanted answers, free where both lie below zero."""
    y = _with_free(rows, _answers(rows, weight))
    cross = rows.x.transpose(1, 2) @ y
    if weight.shape[1] > rows.x.shape[2]:
        cross = torch.cat([cross, y.sum(dim=1, keepdim=True)], dim=1)
    return cross.double() * rows.slope.sign()


def rectified_gap(rows: Rectified, answers: Tensor | None) -> float:
    """Summed squared error of answers y behind the ReLU; the wanted ones' own energy where none are given."""
    return _rectified_gap(rows, None if answers is None else answers * rows.slope.sign())


def _rectified_gap(rows: Rectified, signed: Tensor | None) -> float:
    got = rows.limit if signed is None else torch.maximum(signed, rows.limit)
    gap = torch.maximum(rows.signed, rows.limit) - got
    by_output = torch.linalg.vector_norm(gap, dim=1, keepdim=True, dtype=torch.float64)
    return float((by_output * rows.slope).square().sum())
