import numpy as np
import pytest

from pipelines.steps.measure.rank import Ratio, ratio


def test_a_constant_factor_is_certain_however_the_machine_drifts() -> None:
    """The machine becomes five times slower while it measures; the rounds are paired, so the factor stays 2."""
    drift = np.linspace(1, 5, 40)
    found = ratio(2 * drift, drift)
    assert (found.value, found.low, found.high) == (pytest.approx(2), pytest.approx(2), pytest.approx(2))
    assert not found.is_open


def test_the_interval_of_medians_by_hand() -> None:
    """Two rounds, resampled: ratios of the medians of (1,1) (1,3) (3,1) (3,3) over constant 1 are 1, 2, 2, 3."""
    found = ratio(np.array([1.0, 3.0]), np.array([1.0, 1.0]))
    assert (found.value, found.low, found.high) == (2, 1, 3)


@pytest.mark.parametrize(
    ("low", "high", "is_open"),
    [(1.2, 1.4, False), (0.7, 0.9, False), (0.99, 1.01, False), (0.99, 1.2, True), (0.5, 2.0, True)],
    ids=["slower", "faster", "equal", "open above", "wide"],
)
def test_what_is_left_open(low: float, high: float, is_open: bool) -> None:
    assert Ratio(1.0, low, high).is_open == is_open


def test_noise_hides_a_small_difference_and_not_a_large_one() -> None:
    rng = np.random.default_rng(0)
    noise = lambda: rng.lognormal(0, 0.4, 30)
    assert ratio(1.05 * noise(), noise()).is_open
    assert not ratio(4 * noise(), noise()).is_open
