"""Second moments, streamed: memory depends on widths, not on how many samples were seen."""

from __future__ import annotations

import torch
from torch import Tensor

MAX_INPUTS = 4096  # of a layer: the Gram matrix of more takes gigabytes and minutes
_GOLDEN = 0.6180339887498949
CHUNK = 2**22  # entries multiplied in single precision before they are added in double precision


class Gram:
    """Sums over rows of x x^T, x y^T, y y^T, x, y. x [G, N, K], y [G, N, O]; double precision sums
    in main memory, wherever the rows are.

    `exact`: products in double precision too, so that what is made of the inverse does not depend on how the rows were cut
    into batches. They take twice the time.
    """

    def __init__(self, *, exact: bool = False) -> None:
        self.rows = 0
        self._type = torch.float64 if exact else torch.float32
        self._sums: dict[str, Tensor] = {}

    def add(self, x: Tensor, y: Tensor | None = None) -> None:
        size = max(CHUNK // (x.shape[0] * (x.shape[2] + 1)), 512)
        for start in range(0, x.shape[1], size):
            part = _with_one(self._widened(x[:, start : start + size]))
            self._plus("xx", part.transpose(1, 2) @ part)
            if y is not None:
                out = self._widened(y[:, start : start + size])
                self._plus("xy", part.transpose(1, 2) @ out)
                self._plus("yy", (out * out).sum(dim=1))
        self.rows += x.shape[1]

    def _widened(self, rows: Tensor) -> Tensor:
        on_cpu = rows.device.type == "mps" and self._type is torch.float64  # which has no double precision
        return (rows.cpu() if on_cpu else rows).to(self._type)

    def _plus(self, name: str, term: Tensor) -> None:
        if name in self._sums:
            self._sums[name] += term.cpu()
        else:
            self._sums[name] = term.double().cpu()

    @property
    def xx(self) -> Tensor:
        """[G, K + 1, K + 1]; the last row and column belong to a constant 1."""
        return self._sums["xx"]

    @property
    def xy(self) -> Tensor:
        """[G, K + 1, O]"""
        return self._sums["xy"]

    @property
    def yy(self) -> Tensor:
        """[G, O]"""
        return self._sums["yy"]


def _with_one(x: Tensor) -> Tensor:
    return torch.cat([x, x.new_ones(*x.shape[:2], 1)], dim=2)


def sample_rows(count: int, wanted: int, generator: torch.Generator) -> Tensor:
    """Which of `count` rows to look at: all of them, or `wanted` different ones."""
    if count <= wanted:
        return torch.arange(count)
    if count > 4 * wanted:  # with few repetitions, and without a permutation of everything
        some: Tensor = torch.unique(torch.randint(count, (wanted,), generator=generator))
        return some
    chosen: Tensor = torch.randperm(count, generator=generator)[:wanted].sort().values
    return chosen


def spread_rows(count: int, samples: int, first: int, wanted: int, seed: int = 0) -> Tensor:
    """Which of `count` rows, sample after sample, to look at: about `wanted` of each sample, evenly spread.

    `first`: the number of samples before these. Rows do not depend on how the samples are cut into batches; where they
    start differs from sample to sample, by the golden ratio.
    """
    if not samples or count % samples:
        samples = 1
    each = count // samples
    n = min(wanted, each)
    starts = ((first + seed + torch.arange(samples, dtype=torch.float64)) * _GOLDEN) % 1
    chosen = ((torch.arange(n) + starts[:, None]) * (each / max(n, 1))).long().clamp_max(max(each - 1, 0))
    return (torch.arange(samples)[:, None] * each + chosen).flatten()
