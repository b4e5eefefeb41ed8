"""Who is faster, by how much, and whether that is sure: from samples that were taken in rounds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

EQUAL = (
    0.03  # two models whose times differ by no more than this are equally fast, for sure where the whole interval says so
)
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Ratio:
    """first / second, of the median times, and its confidence interval."""

    value: float
    low: float
    high: float

    @property
    def is_open(self) -> bool:
        """Neither is faster for sure, and they are not equal for sure either."""
        is_ranked = self.low > 1 or self.high < 1
        is_equal = self.low >= 1 / (1 + EQUAL) and self.high <= 1 + EQUAL
        return not (is_ranked or is_equal)


def ratio(first: NDArray[np.float64], second: NDArray[np.float64], confidence: float = 0.95, seed: int = 0) -> Ratio:
    """Samples [rounds] of both, the same round at the same place: rounds are resampled, so drift of the machine cancels."""

    def of_medians(first: NDArray[np.float64], second: NDArray[np.float64], axis: int = -1) -> NDArray[np.float64]:
        found: NDArray[np.float64] = np.median(first, axis=axis) / np.median(second, axis=axis)
        return found

    found = stats.bootstrap(
        (first, second),
        of_medians,
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(seed),
    )
    interval = found.confidence_interval
    return Ratio(float(of_medians(first, second)), float(interval.low), float(interval.high))
