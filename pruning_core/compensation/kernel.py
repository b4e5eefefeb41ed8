"""Ridge regression over rows instead of inputs: the same solution, where a layer has more inputs than there are rows.

A linear layer behind a flattened feature map has tens of thousands of inputs, its Gram matrix gigabytes; that of the rows
with each other has the size of the calibration set. W = W_0 + X^T (X X^T + ridge)^-1 (Y - X W_0), with the columns of X
centred where there is a constant, which is then not held back at all.

Shape legend: G groups, N rows, K inputs, O outputs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pruning_core.compensation.regression import RIDGES, ROUNDS, Rectified, Solution, rectified_gap, with_free

COLUMNS = 4096  # inputs that are taken in double precision at a time


@dataclass(frozen=True, slots=True, eq=False)
class _Change:
    """What the answers gain: `shares` [G, N, O] of each row, and a constant [G, 1, O]."""

    shares: Tensor
    constant: Tensor

    def on(self, products: Tensor) -> Tensor:
        """Of rows whose products with those learned from are [G, M, N]."""
        return products @ self.shares + self.constant


def regress_rows(learn: Rectified, check: Rectified, weight: Tensor, constant: Tensor | None, *, relu: bool) -> Solution:
    """What `regress` finds, from the rows themselves. weight [G, K, O], constant [G, 1, O]."""
    center = learn.x.mean(dim=1, keepdim=True, dtype=torch.float64)
    if constant is None:
        center = torch.zeros_like(center)
    inner, cross = _products(learn.x, learn.x, center), _products(check.x, learn.x, center)
    first, first_checked = _answers(learn.x, weight, constant), _answers(check.x, weight, constant)
    before, energy = _error(check, first_checked, relu), _error(check, None, relu)
    scale = learn.x.double().square().sum(dim=(1, 2)).clamp_min(1e-30) / learn.x.shape[2]
    best: tuple[float, float, _Change, Tensor] | None = None
    for ridge in RIDGES:
        factor, failed = torch.linalg.cholesky_ex(inner + torch.eye(inner.shape[1]) * (ridge * scale)[:, None, None])
        if bool(failed.any()):
            continue
        change = _solve(factor, learn.y - first, constant)
        error = _error(check, first_checked + change.on(cross), relu=False)
        if best is None or error < best[0]:
            best = (error, ridge, change, factor)
    if best is None:
        return Solution(weight, float("inf"), before, before, energy)
    _, ridge, change, factor = best
    for _ in range(ROUNDS if relu else 0):
        change = _solve(factor, with_free(learn, first + change.on(inner)) - first, constant)
    after = _error(check, first_checked + change.on(cross), relu)
    if not after < before:
        return Solution(weight, float("inf"), before, before, energy)
    moved, shift = [], change.constant
    for x, start, middle in zip(_columns(learn.x), torch.split(weight, COLUMNS, dim=1), _columns(center), strict=True):
        gained = x.double().transpose(1, 2) @ change.shares
        moved.append(start + gained.float())
        shift = shift - middle @ gained
    if constant is not None:
        moved.append(constant + shift.float())
    return Solution(torch.cat(moved, dim=1), ridge, before, after, energy)


def _solve(factor: Tensor, gap: Tensor, constant: Tensor | None) -> _Change:
    shift = gap.mean(dim=1, keepdim=True) if constant is not None else torch.zeros(1, 1, 1, dtype=torch.float64)
    return _Change(torch.cholesky_solve(gap - shift, factor), shift)


def _columns(x: Tensor) -> list[Tensor]:
    return [x[:, :, start : start + COLUMNS] for start in range(0, x.shape[2], COLUMNS)]


def _products(a: Tensor, b: Tensor, center: Tensor) -> Tensor:
    """[G, M, N], double precision: single would round away what a small ridge holds back."""
    found = torch.zeros(a.shape[0], a.shape[1], b.shape[1], dtype=torch.float64)
    for left, right, middle in zip(_columns(a), _columns(b), _columns(center), strict=True):
        found += (left.double() - middle) @ (right.double() - middle).transpose(1, 2)
    return found


def _answers(x: Tensor, weight: Tensor, constant: Tensor | None) -> Tensor:
    found = (x @ weight).double()
    return found if constant is None else found + constant


def _error(rows: Rectified, answers: Tensor | None, relu: bool) -> float:
    """Summed squared error, behind the ReLU where there is one; the wanted answers' energy where none are given."""
    if relu:
        return rectified_gap(rows, answers)
    return float((rows.y.double() if answers is None else rows.y - answers).square().sum())
