"""How one ratio is spread, and the rounding and floors after it."""

import numpy as np
import pytest

from pruning_core.allocators import ALLOCATORS, Budget, ScoredGroup, round_kept
from pruning_core.allocators.slamp import slamp_scores


def budget(ratio: float = 0.5, **options: object) -> Budget:
    defaults = {"ratios": {}, "min_channels": 1, "round_to": 1, "round_mode": "nearest", "slamp_p": 1}
    return Budget(ratio=ratio, **{**defaults, **options})  # type: ignore[arg-type]


def group(name: str, scores: list[float], positions: int = 1) -> ScoredGroup:
    return ScoredGroup(
        name, (name,), np.array(scores, dtype=np.float64), frozenset({len(scores) * positions}), None, positions
    )


def test_slamp_by_hand() -> None:
    """Ascending 1 2 5: 1/8, 2/7, 5/5; squared: 1/30, 4/29, 25/25."""
    np.testing.assert_allclose(slamp_scores(np.array([5.0, 1, 2]), 1), [1, 1 / 8, 2 / 7])
    np.testing.assert_allclose(slamp_scores(np.array([5.0, 1, 2]), 2), [1, 1 / 30, 4 / 29])


def test_slamp_counts_equal_scores_in_each_others_sum() -> None:
    np.testing.assert_allclose(slamp_scores(np.array([2.0, 2, 4]), 1), [2 / 8, 2 / 8, 1])


def test_slamp_needs_scores_above_zero_and_shifts_otherwise() -> None:
    np.testing.assert_allclose(slamp_scores(np.array([-1.0, 0, 2]), 1), slamp_scores(np.array([0.0, 1, 3]), 1))
    np.testing.assert_allclose(slamp_scores(np.zeros(4), 1), 0.25)


def test_slamp_removes_the_share_of_all_channels() -> None:
    flat, steep = group("flat", [1.0] * 8), group("steep", [1.0, 1, 1, 1, 100, 200, 400, 800])
    kept = ALLOCATORS["slamp"]([flat, steep], budget(0.5))
    assert sum(kept.values()) == 8
    assert kept["steep"] < kept["flat"], "channels that stand out less go first"


def test_no_layer_vanishes() -> None:
    kept = ALLOCATORS["slamp"]([group("tiny", [1e-9] * 4), group("big", [1.0] * 64)], budget(0.95))
    assert min(kept.values()) >= 1


def test_uniform_and_named_ratios() -> None:
    groups = [group("a.conv", [1.0] * 10), group("b.conv", [1.0] * 10)]
    assert ALLOCATORS["uniform"](groups, budget(0.5, ratios={"b.*": 0.2})) == {"a.conv": 5, "b.conv": 8}
    assert ALLOCATORS["per_layer"](groups, budget(0.5, ratios={"b.*": 0.2})) == {"a.conv": 10, "b.conv": 8}


@pytest.mark.parametrize(
    ("kept", "options", "want"),
    [
        (5.0, {"round_to": 2}, 6),
        (5.0, {"round_to": 2, "round_mode": "down"}, 4),
        (4.1, {"round_to": 4, "round_mode": "up"}, 8),
        (3.9, {"round_to": 8, "min_channels": 8}, 8),
        (0.4, {}, 1),
        (10.0, {"round_to": 8}, 10),
        (9.7, {"round_to": 2}, 10),
    ],
)
def test_rounding_acts_on_kept_widths(kept: float, options: dict[str, object], want: int) -> None:
    assert round_kept(kept, group("g", [1.0] * 10), budget(**options)) == want  # type: ignore[arg-type]


def test_floors_and_multiples_count_positions() -> None:
    """One channel stands for 12 positions (a head dimension over 12 heads): one of them is above a floor of 8."""
    heads = group("qkv", [1.0] * 64, positions=12)
    assert round_kept(0.2, heads, budget(min_channels=8, round_to=2)) == 1
    assert round_kept(31.7, heads, budget(min_channels=8, round_to=8)) == 32
