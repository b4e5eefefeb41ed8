"""Make scores of different layers comparable. Shapes: scores [C] -> [C]; equal scores stay equal, never NaN."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from pruning_core.registry import Registry

Scores = NDArray[np.float64]
NORMALIZERS: Registry[Callable[[Scores], Scores]] = Registry("normalizer")


def _over(x: Scores, divisor: float) -> Scores:
    return x / divisor if divisor else np.zeros_like(x)


@NORMALIZERS.register
def none(x: Scores) -> Scores:
    """x"""
    return x


@NORMALIZERS.register
def standard_score(x: Scores) -> Scores:
    """(x - mean) / std, with the population's standard deviation."""
    return _over(x - x.mean(), float(x.std()) if np.ptp(x) else 0.0)


@NORMALIZERS.register
def tss(x: Scores) -> Scores:
    """x / sum x: total sum scaling."""
    return _over(x, float(x.sum()))


@NORMALIZERS.register
def linear_scaling(x: Scores) -> Scores:
    """(x - min) / (max - min)."""
    return _over(x - x.min(), float(np.ptp(x)))


@NORMALIZERS.register
def softmax(x: Scores) -> Scores:
    """exp(x) / sum exp(x), with the largest x taken off first."""
    e = np.exp(x - x.max())
    return np.asarray(e / e.sum(), dtype=np.float64)


@NORMALIZERS.register
def max(x: Scores) -> Scores:
    """x / max x."""
    return _over(x, float(np.max(x)))
