"""How sure a number is, and whether a difference is more than noise. Nothing here knows a model."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import stats

CELLS = 4_000_000  # numbers gathered at once while resampling: 32 MB

Numbers = NDArray[np.float64]


class Resampling(Protocol):
    """The `evaluate` section of the configuration is one."""

    @property
    def resamples(self) -> int: ...
    @property
    def confidence(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, slots=True)
class Interval:
    """low <= high, at the confidence that was asked for; p_value: of the hypothesis that the true value is 0."""

    low: float
    high: float
    p_value: float


def bootstrap(summands: Numbers, value_of: Callable[[Numbers], Numbers], options: Resampling) -> Interval | None:
    """Percentile bootstrap over samples of `value_of(means)`, where summands [N, K] have the means [..., K] -> [...].

    The p-value is twice the share of resamples on the rarer side of 0, counting one more than there were
    (Davison and Hinkley, Bootstrap Methods and their Application, 1997, section 4.2.1). None for fewer than 2 samples.
    """
    samples, width = summands.shape
    if samples < 2:
        return None

    def statistic(index: NDArray[np.int64], axis: int = -1) -> Numbers:
        return value_of(summands[index].mean(axis=axis - 1))  # one more axis than the index: K

    found = stats.bootstrap(
        (np.arange(samples),),
        statistic,
        n_resamples=options.resamples,
        batch=max(1, CELLS // (samples * width)),
        vectorized=True,
        confidence_level=options.confidence,
        method="percentile",
        rng=np.random.default_rng(options.seed),
    )
    values = found.bootstrap_distribution
    rarer = min(int((values <= 0).sum()), int((values >= 0).sum()))
    p_value = min(1.0, 2 * (rarer + 1) / (len(values) + 1))
    return Interval(float(found.confidence_interval.low), float(found.confidence_interval.high), p_value)


def mcnemar(correct: NDArray[np.bool_], source_correct: NDArray[np.bool_]) -> float:
    """p-value of the hypothesis that both models are right equally often, from the samples that only one gets right.

    The exact binomial test, for any number of them. Reference: McNemar, Psychometrika 12 (1947).
    """
    lost, gained = int((source_correct & ~correct).sum()), int((correct & ~source_correct).sum())
    return float(stats.binomtest(lost, lost + gained).pvalue) if lost + gained else 1.0
