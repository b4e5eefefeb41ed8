import numpy as np
import pytest
from scipy import stats

from pipelines.config import Evaluate
from pipelines.steps.evaluate import bootstrap, mcnemar

OPTIONS = Evaluate(resamples=2000)


def first(means: np.ndarray) -> np.ndarray:
    return means[..., 0]


def test_mcnemar_by_hand() -> None:
    """Only samples that one model alone gets right count: 6 lost, 1 gained -> 2 (C(7,0) + C(7,1)) / 2^7."""
    source = np.array([True] * 6 + [False] + [True] * 50)
    own = np.array([False] * 6 + [True] + [True] * 50)
    assert mcnemar(own, source) == pytest.approx(2 * (1 + 7) / 2**7)
    assert mcnemar(source, own) == mcnemar(own, source)
    assert mcnemar(source, source) == 1
    assert mcnemar(np.array([True, False]), np.array([False, True])) == 1


def test_the_interval_of_a_share_is_the_binomial_one() -> None:
    """Resampling 0s and 1s draws from a binomial distribution, whose quantiles are known."""
    hits = np.zeros((200, 1))
    hits[:150] = 1
    found = bootstrap(hits, first, OPTIONS)
    assert found is not None
    low, high = stats.binom(200, 0.75).ppf([0.025, 0.975]) / 200
    assert (found.low, found.high) == (pytest.approx(low, abs=0.011), pytest.approx(high, abs=0.011))
    assert found == bootstrap(hits, first, OPTIONS)  # seeded


def test_the_p_value_is_that_of_the_mean() -> None:
    """Against the t-test, whose answer a bootstrap of that many samples must be near."""
    rng = np.random.default_rng(0)
    differences = rng.normal(0.15, 1, (300, 1))
    found = bootstrap(differences, first, Evaluate(resamples=5000))
    assert found is not None
    assert found.p_value == pytest.approx(stats.ttest_1samp(differences[:, 0], 0).pvalue, rel=0.3)
    nothing = bootstrap(np.zeros((10, 1)), first, OPTIONS)
    assert nothing is not None
    assert (nothing.low, nothing.high, nothing.p_value) == (0, 0, 1)
    shifted = bootstrap(np.full((10, 1), 2.0), first, OPTIONS)
    assert shifted is not None
    assert shifted.p_value == pytest.approx(2 / 2001)  # none of 2,000 resamples is on the other side


def test_several_numbers_per_sample_stay_together() -> None:
    """A ratio of sums: every sample has twice as much of one as of the other, so there is nothing to be unsure of."""
    one = np.random.default_rng(0).random((50, 1))
    found = bootstrap(np.hstack([one, 2 * one]), lambda means: means[..., 1] / means[..., 0], OPTIONS)
    assert found is not None
    assert (found.low, found.high) == (pytest.approx(2), pytest.approx(2))
    assert bootstrap(one[:1], first, OPTIONS) is None
