"""The golden examples of the reference product's method page."""

import numpy as np
import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.allocators import ScoredGroup
from pruning_core.policies import combine, fold_positions
from pruning_core.select import best_channels, by_smallest_loss
from tests.models import IMAGE, seeded

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


def test_groups_of_a_convolution_lose_one_number() -> None:
    """Two groups of four, best first 0 1 2 | 4 5 | 3 | 6 7: on their own they would lose one and three."""
    scores = np.array([8.0, 7, 6, 3, 5, 4, 2, 1])
    group = ScoredGroup("g", ("g",), scores, np.array([0, 0, 0, 0, 1, 1, 1, 1]), 1)
    assert by_smallest_loss(group, 4) == 6
    assert best_channels(group, 6) == (0, 1, 2, 4, 5, 6)
    assert best_channels(group, 4) == (0, 1, 4, 5)


@pytest.mark.parametrize("policy", ["sum", "average", "count", "none"])
def test_group_policies_on_a_grouped_convolution(policy: str) -> None:
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 32, 1), nn.Conv2d(32, 32, 3, groups=4), nn.Conv2d(32, 4, 1)))()
    spec = pc.PruningSpec(group_policy=policy)
    result = pc.prune(model, IMAGE(), spec, check="numeric")
    cut = next(c for c in result.plan.slices if c.tensor == "1.weight" and c.axis == 0)
    rows = [[k % 8 for k in cut.keep if k // 8 == group] for group in range(4)]
    (width,) = {len(row) for row in rows}
    assert 4 <= width < 8 if policy == "count" else width == 4
    assert (len({tuple(row) for row in rows}) == 1) == (policy in {"sum", "average"})
    again = pc.apply(model, pc.PruningPlan.from_json(result.plan.to_json()))
    assert all(
        torch.equal(a, b) for a, b in zip(again.state_dict().values(), result.model.state_dict().values(), strict=True)
    )
