"""How one ratio is spread, and the rounding and floors after it."""

from dataclasses import replace

import numpy as np
import pytest

from pruning_core.allocators import ALLOCATORS, Budget, ScoredGroup, round_kept
from pruning_core.allocators.slamp import slamp_scores
from pruning_core.normalizers import NORMALIZERS


def budget(ratio: float = 0.5, **options: object) -> Budget:
    defaults = {"ratios": {}, "min_channels": 1, "round_to": 1, "round_mode": "nearest", "slamp_p": 1}
    return Budget(ratio=ratio, **{**defaults, **options})  # type: ignore[arg-type]


def group(name: str, scores: list[float], positions: int = 1, kind: str = "") -> ScoredGroup:
    structure = (((kind,), 4, 0, True),)
    return ScoredGroup(name, (name,), np.array(scores, dtype=np.float64), None, positions, structure)


def test_slamp_by_hand() -> None:
    """Ascending 1 2 5: 1/8, 2/7, 5/5; squared: 1/30, 4/29, 25/25."""
    np.testing.assert_allclose(slamp_scores(np.array([5.0, 1, 2]), 1), [1, 1 / 8, 2 / 7])
    np.testing.assert_allclose(slamp_scores(np.array([5.0, 1, 2]), 2), [1, 1 / 30, 4 / 29])


def test_slamp_counts_equal_scores_in_each_others_sum() -> None:
    np.testing.assert_allclose(slamp_scores(np.array([2.0, 2, 4]), 1), [2 / 8, 2 / 8, 1])


def test_slamp_needs_scores_above_zero_and_shifts_otherwise() -> None:
    np.testing.assert_allclose(slamp_scores(np.array([-1.0, 0, 2]), 1), slamp_scores(np.array([0.0, 1, 3]), 1))
    np.testing.assert_allclose(slamp_scores(np.zeros(4), 1), 0.25)


@pytest.mark.parametrize("p", [1, 2])
def test_slamp_of_standard_scores_is_that_of_the_distances_to_the_least(p: int) -> None:
    """(x - mean) / std shifted to its minimum is (x - min x) / std, and slamp knows no scale: 0 1 4 of 1 2 5."""
    want = {1: [0, 1 / 5, 1], 2: [0, 1 / 17, 1]}[p]
    np.testing.assert_allclose(slamp_scores(NORMALIZERS["standard_score"](np.array([1.0, 2, 5])), p), want, atol=1e-12)


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("normalizer", list(NORMALIZERS))
def test_the_best_channel_of_a_layer_has_1(p: int, normalizer: str) -> None:
    scores = slamp_scores(NORMALIZERS[normalizer](np.array([3.0, 9, 4, 1])), p)
    assert scores[1] == pytest.approx(1)
    assert (np.argsort(scores) == [3, 0, 2, 1]).all()


def test_slamp_squared_spreads_otherwise() -> None:
    """a: 4 5 -> 4/9, 1 (16/41, 1); b: 1 2 3 -> 1/6, 2/5, 1 (1/14, 4/13, 1)."""
    groups = [group("a", [4.0, 5]), group("b", [1.0, 2, 3])]
    assert ALLOCATORS["slamp"](groups, budget(0.4)) == {"a": 2, "b": 1}
    np.testing.assert_allclose(slamp_scores(groups[0].scores, 2), [16 / 41, 1])
    np.testing.assert_allclose(slamp_scores(groups[1].scores, 2), [1 / 14, 4 / 13, 1])


def test_global_has_one_threshold() -> None:
    """Of 0.1 0.2 0.3 0.4 0.5 0.6 0.7 0.8 the four lowest go, wherever they are."""
    groups = [group("a", [0.8, 0.1, 0.3]), group("b", [0.2, 0.4, 0.5, 0.6, 0.7])]
    assert ALLOCATORS["global"](groups, budget(0.5)) == {"a": 1, "b": 3}
    assert ALLOCATORS["global"](groups, budget(0.25)) == {"a": 2, "b": 4}


def test_global_keeps_the_best_channel_of_every_group() -> None:
    groups = [group("low", [0.1, 0.2, 0.05]), group("high", [1.0] * 7)]
    assert ALLOCATORS["global"](groups, budget(0.5)) == {"low": 1, "high": 4}


def test_global_counts_positions() -> None:
    """A channel of `heads` is 4 positions: 12 of 16 in all; half of it is two such channels."""
    groups = [group("heads", [0.1, 0.2, 0.9], positions=4), group("plain", [0.5, 0.6, 0.7, 0.8])]
    assert ALLOCATORS["global"](groups, budget(0.5)) == {"heads": 1, "plain": 4}


@pytest.mark.parametrize("name", ["global", "isomorphic", "slamp"])
def test_named_groups_are_left_out_of_the_common_budget(name: str) -> None:
    groups = [group("a", [1.0, 2, 3, 4]), group("b", [1.0, 2, 3, 4])]
    assert ALLOCATORS[name](groups, budget(0.5, ratios={"a": 0.25})) == {"a": 3, "b": 2}
    assert ALLOCATORS[name](groups, budget(0.5, ratios={"*": 0.25})) == {"a": 3, "b": 3}


def test_isomorphic_ranks_only_what_is_alike() -> None:
    """conv: 1 2 3 4 5 6 -> 1 2 3 go; linear, far below all of them, loses half of its own."""
    groups = [
        group("conv1", [1.0, 2, 6], kind="conv"),
        group("fc", [0.01, 0.02, 0.03, 0.04], kind="linear"),
        group("conv2", [3.0, 4, 5], kind="conv"),
    ]
    assert ALLOCATORS["isomorphic"](groups, budget(0.5)) == {"conv1": 1, "conv2": 2, "fc": 2}
    assert ALLOCATORS["global"](groups, budget(0.5)) == {"conv1": 1, "conv2": 3, "fc": 1}


def test_global_is_named_without_its_underscore() -> None:
    assert "global" in ALLOCATORS
    assert "global_" not in ALLOCATORS


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
        (0.9, {"round_to": 4, "round_mode": "down"}, 4),
        (1.0, {"round_to": 4, "min_channels": 5}, 8),
        (1.0, {"round_to": 8, "min_channels": 9}, 10),
    ],
)
def test_rounding_acts_on_kept_widths(kept: float, options: dict[str, object], want: int) -> None:
    assert round_kept(kept, group("g", [1.0] * 10), budget(**options)) == want  # type: ignore[arg-type]


def test_floors_and_multiples_count_positions() -> None:
    """One channel stands for 12 positions (a head dimension over 12 heads): one of them is above a floor of 8."""
    heads = group("qkv", [1.0] * 64, positions=12)
    assert round_kept(0.2, heads, budget(min_channels=8, round_to=2)) == 1
    assert round_kept(31.7, heads, budget(min_channels=8, round_to=8)) == 32


def test_lots_of_a_grouped_convolution_are_whole() -> None:
    """Four blocks of three: 12, 8 or 4 channels can stay; with multiples of 6 only all 12."""
    lots = replace(group("g", [1.0] * 12), blocks=np.arange(12) % 4)
    assert [round_kept(kept, lots, budget()) for kept in (1.0, 5.9, 6.0, 11.0)] == [4, 4, 8, 12]
    assert round_kept(3.0, lots, budget(round_to=6)) == 12


def test_the_rounding_and_the_floor_hold_in_every_part() -> None:
    """Eight lots of 8 positions here and of 24 there."""
    pair = replace(group("a", [1.0] * 8, positions=32), parts=(group("a", [1.0] * 64), group("b", [1.0] * 8, positions=24)))
    assert pair.strides == (8, 24)
    assert round_kept(0.0, pair, budget(min_channels=33)) == 5
    assert round_kept(1.4, pair, budget(round_to=48)) == 6
