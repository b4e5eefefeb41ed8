"""Why a group that could be cut keeps all of its channels: the plan and the recommendation say which it was."""

from typing import Any

import pytest
import torch
from torch import nn

import pruning_core as pc
from tests.models import NETS, seeded

NET = NETS["conv_stack"]  # conv1 16, conv2 32, conv3 24 channels


def reasons(spec: pc.PruningSpec) -> dict[str, str]:
    """Layer -> why it is left alone, as plan and recommendation both have it."""
    plan = pc.plan(NET.build(), NET.inputs(), spec)
    found = {lock.group: lock.reason for lock in plan.locked}
    rows = {row.name: row.reason for row in pc.recommend(NET.build(), NET.inputs(), spec).rows}
    assert rows == {**dict.fromkeys(rows, ""), **found}
    assert found.pop("fc") == "locked: reaches the model output"
    assert plan.prunable_before == 72 - sum({"conv1": 16, "conv2": 32, "conv3": 24}[name] for name in spec.exclude)
    assert pc.PruningPlan.from_json(plan.to_json()) == plan
    return found


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ({"min_channels": 24}, {"conv1": "floor: min_channels 24", "conv3": "floor: min_channels 24"}),
        ({"round_to": 10}, {}),
        ({"round_to": 16, "round_mode": "down"}, {"conv1": "rounding: round_to 16, down"}),
        ({"round_to": 20}, {"conv1": "rounding: round_to 20, nearest"}),
        ({"ratio": 0.02, "exclude": ["conv2", "conv3"]},
         {"conv1": "rounding: to whole channels", "conv2": 'excluded by "conv2"', "conv3": 'excluded by "conv3"'}),
        ({"ratio": 0.0, "allocator": "global"}, dict.fromkeys(("conv1", "conv2", "conv3"), "ratio 0")),
        ({"ratio": 0.5, "ratios": {"conv1": 0.0}}, {"conv1": "ratio 0"}),
        (
            {"allocator": "per_layer", "ratios": {"conv1": 0.5}},
            {"conv2": "not named in ratios", "conv3": "not named in ratios"},
        ),
        (
            {"ratio": 0.02, "allocator": "slamp", "round_to": 1},
            {"conv1": "its channels rank above the threshold", "conv3": "its channels rank above the threshold"},
        ),
        (
            {"budget": {"macs": "1.1x"}, "min_channels": 24},
            {"conv1": "floor: min_channels 24", "conv3": "floor: min_channels 24"},
        ),
        (
            {"budget": {"macs": "1.1x"}},
            {"conv2": "the budget is met without it", "conv3": "the budget is met without it"},
        ),
    ],
)  # fmt: skip
def test_it_is_said_what_keeps_them(options: dict[str, Any], want: dict[str, str]) -> None:
    assert reasons(pc.PruningSpec(**options)) == want


def test_the_channels_of_a_grouped_convolution_go_at_once() -> None:
    """Four groups of three channels: of the twelve four go or none, and a tenth is nearer to none."""
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, 12, 1), nn.Conv2d(12, 12, 1, groups=4), nn.Conv2d(12, 4, 1)))()
    plan = pc.plan(model, torch.randn(2, 3, 8, 8), pc.PruningSpec(ratio=0.1, min_channels=1, round_to=1))
    assert {lock.reason for lock in plan.locked if lock.prunable} == {"rounding: 4 channels go at once"}


@pytest.mark.parametrize("steps", [1, 2])
def test_what_the_criterion_cannot_see_is_not_among_the_prunable(steps: int) -> None:
    layers = [nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 12, 1), nn.Conv2d(12, 4, 1)]
    model, x = seeded(lambda: nn.Sequential(*layers))(), torch.randn(8, 3, 8, 8)
    plan = pc.plan(model, x[:2], pc.PruningSpec(criterion="bn_scale", steps=steps), x)
    blind = next(lock for lock in plan.locked if lock.group == "3")
    assert blind.reason == "criterion 'bn_scale' finds no BatchNorm behind this layer"
    assert plan.prunable_before == 16
    found = pc.recommend(model, x[:2], pc.PruningSpec(criterion="bn_scale"), x)
    assert found.ratios == {"0": 0.5}
    assert next(row for row in found.rows if row.name == "3").reason == blind.reason


def test_several_rounds_say_it_too() -> None:
    plan = pc.plan(NET.build(), NET.inputs(), pc.PruningSpec(steps=2, min_channels=24))
    assert {lock.group: lock.reason for lock in plan.locked if lock.prunable} == {
        "conv1": "floor: min_channels 24",
        "conv3": "floor: min_channels 24",
    }


def test_what_is_only_held_stays_editable() -> None:
    found = pc.recommend(NET.build(), NET.inputs(), pc.PruningSpec(min_channels=24))
    assert found.ratios == {"conv1": 0.0, "conv2": 0.25, "conv3": 0.0}
