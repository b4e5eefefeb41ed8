"""Each formula against numbers worked by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pruning_core.normalizers import NORMALIZERS

X = np.array([1.0, 2.0, 5.0])  # sum 8, mean 8/3, spread 4, max 5


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("none", [1, 2, 5]),
        ("standard_score", [-0.980581, -0.392232, 1.372813]),  # std = sqrt(26) / 3
        ("tss", [0.125, 0.25, 0.625]),
        ("linear_scaling", [0, 0.25, 1]),
        ("softmax", [0.017148, 0.046613, 0.936239]),  # e^-4, e^-3, 1 over their sum
        ("max", [0.2, 0.4, 1]),
    ],
)
def test_by_hand(name: str, want: list[float]) -> None:
    np.testing.assert_allclose(NORMALIZERS[name](X), want, atol=1e-6)


@pytest.mark.parametrize("name", list(NORMALIZERS))
@pytest.mark.parametrize("value", [0.0, 3.0, 1e30])
def test_equal_scores_stay_equal_and_finite(name: str, value: float) -> None:
    found = NORMALIZERS[name](np.full(4, value))
    assert np.isfinite(found).all()
    assert np.ptp(found) == 0


@pytest.mark.parametrize("name", list(NORMALIZERS))
@given(st.lists(st.integers(0, 50), min_size=2, max_size=9))
def test_order_is_kept(name: str, scores: list[int]) -> None:
    x = np.array(scores, dtype=np.float64)
    y = NORMALIZERS[name](x)
    for i in range(len(x)):
        for j in range(len(x)):
            assert (y[i] <= y[j]) or x[i] > x[j]
