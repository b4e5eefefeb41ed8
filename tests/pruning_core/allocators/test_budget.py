"""Budgets: the cost model must be what the pruned model really costs, and the target is met from the safe side."""

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import pruning_core as pc
from tests.models import NETS

X = torch.randn(2, 3, 16, 16)


def convnet() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.BatchNorm2d(64), nn.ReLU(),
        nn.Conv2d(64, 96, 3, padding=1), nn.ReLU(),
        nn.Conv2d(96, 96, 3, padding=1, groups=96), nn.Conv2d(96, 128, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(128, 10),
    ).eval()  # fmt: skip


def amount(report: pc.PruneReport, cost: str) -> tuple[float, float]:
    key = {"macs": "macs", "params": "params", "size_mb": "size_bytes"}[cost]
    return getattr(report.before, key), getattr(report.after, key)


@pytest.mark.parametrize("cost", ["macs", "params", "size_mb"])
@pytest.mark.parametrize("factor", [1.5, 2.0, 4.0])
def test_a_factor_is_met_within_two_percent(cost: str, factor: float) -> None:
    result = pc.prune(convnet(), X, pc.PruningSpec(budget={cost: f"{factor}x"}, round_to=1))
    before, after = amount(result.report, cost)
    assert 0.98 <= after * factor / before <= 1.0 + 1e-9


@pytest.mark.parametrize("target", [5000, 6000, 7000, 9000, "2x", "2.5x"])
def test_coarse_groups_are_combined_until_the_target_is_near(target: float | str) -> None:
    """A step of the wide layers is several percent of the whole; what the last one overshoots, narrow ones give back."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1, groups=4), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 24), nn.ReLU(), nn.Linear(24, 10),
    ).eval()  # fmt: skip
    report = pc.prune(net, X, pc.PruningSpec(budget={"params": target})).report
    limit = report.before.params / float(target[:-1]) if isinstance(target, str) else target
    assert 0.98 <= report.after.params / limit <= 1


def test_absolute_targets_and_several_at_once() -> None:
    full = pc.cost(convnet(), X)
    spec = pc.PruningSpec(budget={"macs": full.macs * 0.6, "params": "3x"})
    report = pc.prune(convnet(), X, spec).report
    assert report.after.macs <= 0.6 * full.macs
    assert 0.97 <= report.after.params * 3 / full.params <= 1.0


@settings(max_examples=25, deadline=None)
@given(
    policy=st.sampled_from(["sum", "average", "count", "none"]),
    groups=st.sampled_from([2, 4, 8, 16]),
    factor=st.floats(1.1, 5),  # 16 groups in multiples of 12 leave 48 channels: 5.3x at most
    round_to=st.sampled_from([1, 8, 12]),
    observed=st.booleans(),
)
def test_a_budget_is_met_whatever_the_group_policy(
    policy: str, groups: int, factor: float, round_to: int, observed: bool
) -> None:
    """What the groups of a convolution lose, equal numbers of multiples, is what the target is counted with."""
    torch.manual_seed(groups)
    model = nn.Sequential(
        nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.Conv2d(64, 64, 3, padding=1, groups=groups), nn.ReLU(),
        nn.Conv2d(64, 200, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(200, 5),
    )  # fmt: skip
    spec = pc.PruningSpec(
        budget={"macs": f"{factor}x"}, group_policy=policy, min_channels=1, round_to=round_to, compensation="none"
    )
    result = pc.prune(model, X[:, :, :8, :8], spec, torch.randn(4, 3, 8, 8) if observed else None)
    assert result.report.before.macs / result.report.after.macs >= factor - 1e-6
    for cut in result.plan.cuts:
        assert len(cut.keep) * cut.positions % round_to == 0


@pytest.mark.parametrize("name", sorted(NETS))
def test_the_model_of_costs_is_right_for_every_net(name: str) -> None:
    """Predicted MACs of the chosen widths = MACs of the pruned model: the target would be missed otherwise."""
    case = NETS[name]
    result = pc.prune(case.build(), case.inputs(), pc.PruningSpec(budget={"macs": "1.5x"}, min_channels=1, round_to=1))
    assert result.report.after.macs <= result.report.before.macs / 1.5 + 1e-6


@pytest.mark.parametrize("names", [*permutations(("params", "size_mb", "macs"), 2)])
def test_each_of_two_targets_is_counted_in_its_own_unit(names: tuple[str, str]) -> None:
    model = convnet()
    full = pc.cost(model, X)
    known = {"params": float(full.params), "size_mb": full.size_bytes / 1e6, "macs": float(full.macs)}
    targets = {names[0]: known[names[0]] / 1.3, names[1]: known[names[1]] / 2}
    after = pc.prune(model, X, pc.PruningSpec(budget=targets, min_channels=1, round_to=1)).report.after
    found = {"params": after.params, "size_mb": after.size_bytes / 1e6, "macs": after.macs}
    assert all(found[name] <= target for name, target in targets.items())
    assert max(found[name] / target for name, target in targets.items()) > 0.95


def test_a_target_out_of_reach_says_how_far_one_gets() -> None:
    with pytest.raises(pc.SpecError, match=r"cannot be reached: the least is [\d,]+, \d+\.\d+x less than now") as caught:
        pc.prune(convnet(), X, pc.PruningSpec(budget={"macs": "500x"}))
    assert "reaches the model output" in caught.value.where
    assert "min_channels 8" in caught.value.where


def test_damage_per_cost_decides() -> None:
    """Two layers of one size, one of which hardly matters: it goes first."""
    model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))
    with torch.no_grad():
        model[2].weight[:, 32:] *= 1e-3  # the second half of the first layer's outputs is hardly read
    data = torch.randn(256, 16, generator=torch.Generator().manual_seed(0))
    plan = pc.plan(model, data[:2], pc.PruningSpec(budget={"macs": "1.6x"}), data)
    first = next(cut for cut in plan.cuts if cut.group == "0")
    gone = set(range(64)) - set(first.keep)
    assert len(gone) > 8
    assert all(channel >= 32 for channel in gone) or all(channel < 32 for channel in first.keep)


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"mac": "2x"}, "did you mean 'macs'"),
        ({"macs": "fast"}, "is 'fast'"),
        ({"macs": "0.5x"}, "is '0.5x'"),
        ({"params": -3}, "is -3"),
    ],
)
def test_a_budget_that_makes_no_sense(budget: dict[str, object], message: str) -> None:
    with pytest.raises(pc.SpecError, match=message):
        pc.PruningSpec(budget=budget)  # type: ignore[arg-type]


@pytest.mark.usefixtures("steady_clock")
def test_latency_comes_from_a_table_that_can_be_stored() -> None:
    table = pc.LatencyTable(threads=1)
    result = pc.prune(convnet(), X, pc.PruningSpec(budget={"latency_ms": "1.3x"}), latencies=table)
    assert result.report.after.macs < result.report.before.macs
    assert table.known
    again = pc.LatencyTable.from_json(table.to_json())
    assert again.known == table.known
    with pytest.raises(pc.SpecError, match="no latency table"):
        pc.LatencyTable.from_json("{}")


def test_groups_with_a_ratio_of_their_own_keep_it() -> None:
    plan = pc.plan(convnet(), X, pc.PruningSpec(budget={"macs": "2x"}, ratios={"0": 0.25}))
    assert len(next(cut for cut in plan.cuts if cut.group == "0").keep) == 48
