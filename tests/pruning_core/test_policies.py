"""The golden examples of the reference product's method page."""

import numpy as np
import pytest

from pruning_core.policies import combine, fold_positions

X = np.array([11.0, 19, 38, 25, 46])
F = np.array([20.0, 12, 18, 16, 39])


@pytest.mark.parametrize(
    ("policy", "want"),
    [
        ("sum", [0.27, 0.25, 0.44, 0.33, 0.70]),
        ("average", [0.14, 0.13, 0.22, 0.17, 0.35]),
        ("max", [0.19, 0.14, 0.27, 0.18, 0.37]),
        ("min", [0.08, 0.11, 0.17, 0.15, 0.33]),
        ("intersection", [0.19, 0.14, 0.27, 0.18, 0.37]),
        ("union", [0.08, 0.11, 0.17, 0.15, 0.33]),
    ],
)
def test_tss_normalised_first(policy: str, want: list[float]) -> None:
    np.testing.assert_allclose(combine([X, F], "tss", policy), want, atol=0.006)


def test_backward_adds_raw_scores_and_normalises_after() -> None:
    other = np.array([14.0, 3, 26, 18, 12])
    np.testing.assert_allclose(combine([X, other], "none", "backward"), [25, 22, 64, 43, 58])
    np.testing.assert_allclose(combine([X, other], "tss", "backward"), [0.12, 0.10, 0.30, 0.20, 0.27], atol=0.005)


def test_two_of_five_go_in_both() -> None:
    assert set(np.argsort(combine([X, F], "tss", "sum"))[:2]) == {0, 1}


def test_positions_that_go_together() -> None:
    """Two heads of three: position j of both is one channel."""
    scores = np.array([1.0, 2, 3, 10, 20, 30])
    channel_of = np.array([0, 1, 2, 0, 1, 2])
    np.testing.assert_allclose(fold_positions(scores, channel_of, 3, "sum"), [11, 22, 33])
    np.testing.assert_allclose(fold_positions(scores, channel_of, 3, "average"), [5.5, 11, 16.5])
