"""Iterative pruning ends as one plan for the original model."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import pruning_core as pc
from pipelines.models import small_resnet
from pruning_core.coupling.groups import ChannelGroup, Member
from pruning_core.iterative import composed, originals
from pruning_core.plan import TensorSlice
from tests.awkward import AWKWARD
from tests.models import NETS, seeded


def test_slices_of_slices_in_the_positions_of_the_original() -> None:
    first = {("w", 0): TensorSlice(tensor="w", axis=0, width=6, keep=(0, 2, 3, 5))}
    then = [TensorSlice(tensor="w", axis=0, width=4, keep=(1, 3)), TensorSlice(tensor="v", axis=1, width=3, keep=(2,))]
    found = composed(first, then)
    assert found["w", 0] == TensorSlice(tensor="w", axis=0, width=6, keep=(2, 5))
    assert found["v", 1].keep == (2,)


@pytest.mark.parametrize("name", sorted(NETS))
def test_two_rounds_give_a_plan_that_applies(name: str) -> None:
    case = NETS[name]
    model, x = case.build(), case.inputs()
    result = pc.prune(model, x, pc.PruningSpec(ratio=0.5, steps=2, min_channels=1, round_to=1), check="numeric")
    assert result.report.channels_after < result.report.channels_before
    again = pc.apply(model, pc.PruningPlan.from_json(result.plan.to_json()), x)
    for one, other in zip(result.model.parameters(), again.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_all_rounds_cut_the_same_factor_of_a_split_axis() -> None:
    """Heads of 8: the first round makes them smaller than the heads are many, and the next one must go on with it."""
    torch.manual_seed(0)
    embed, attention = nn.Linear(6, 32), nn.MultiheadAttention(32, 4, batch_first=True)
    model = Attending([embed, attention, nn.Linear(32, 5)]).eval()
    result = pc.prune(model, torch.randn(2, 5, 6), pc.PruningSpec(ratio=0.8, steps=3, min_channels=1), check="numeric")
    assert {cut.group: cut.width for cut in result.plan.cuts} == {"0": 32, "1": 8}
    assert result.plan.channels_after <= 0.3 * result.plan.channels_before


class Attending(nn.ModuleList):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        embed, attention, head = self
        x = embed(x)
        return head((x + attention(x, x, x)[0]).mean(1))


def test_a_budget_over_three_rounds() -> None:
    case = NETS["residual"]
    x = case.inputs()
    assert isinstance(x, torch.Tensor)
    batches = [torch.randn(8, *x.shape[1:], generator=torch.Generator().manual_seed(k)) for k in range(5)]
    spec = pc.PruningSpec(budget={"macs": "2x"}, steps=3, min_channels=2)
    report = pc.prune(case.build(), x, spec, batches).report
    assert report.after.macs <= report.before.macs / 2


def test_what_every_position_that_is_left_stands_for() -> None:
    """Two groups of four and two channels on one axis, of which one and two are left: four of the first, one each."""
    channel_of = np.array([0, 1, 2, 3, -1, -1]), np.array([-1, -1, -1, -1, 0, 1])
    groups = [
        ChannelGroup(name, np.unique(of[of >= 0]), (Member("w", 0, True, of), Member("v", 1, False, of)), "", "")
        for name, of in zip("ab", channel_of, strict=True)
    ]
    found = originals(groups, {("w", 0): TensorSlice(tensor="w", axis=0, width=6, keep=(2, 4, 5))})
    assert found["w", 0].tolist() == [4, 1, 1]
    assert found["v", 1].tolist() == [1] * 6


def mlp(*widths: int) -> nn.Module:
    torch.manual_seed(0)
    sizes = (4, *widths, 3)
    return nn.Sequential(*[layer for pair in pairwise(sizes) for layer in (nn.Linear(*pair), nn.ReLU())][:-1]).eval()


def widths_by(model: nn.Module, x: Tensor, spec: pc.PruningSpec) -> dict[str, int]:
    return {cut.group: len(cut.keep) for cut in pc.plan(model, x, spec).cuts}


@pytest.mark.parametrize("steps", [2, 5, 10])
@pytest.mark.parametrize(("width", "round_to", "kept"), [(16, 2, 8), (32, 2, 16), (64, 2, 32), (64, 8, 32), (16, 8, 8)])
def test_rounding_neither_drifts_nor_stalls(width: int, round_to: int, kept: int, steps: int) -> None:
    spec = pc.PruningSpec(ratio=0.5, round_to=round_to, steps=steps)
    assert widths_by(mlp(width), torch.zeros(2, 4), spec) == {"0": kept}


@pytest.mark.parametrize("allocator", ["uniform", "per_layer"])
@given(
    widths=st.tuples(st.integers(2, 128), st.integers(2, 128)),
    ratios=st.tuples(st.floats(0, 0.9), st.floats(0, 0.9)),
    steps=st.integers(1, 6),
    round_to=st.sampled_from([1, 2, 8]),
    round_mode=st.sampled_from(["nearest", "up", "down"]),
    min_channels=st.sampled_from([1, 8]),
)
def test_the_last_round_ends_where_one_shot_does(
    allocator: str,
    widths: tuple[int, int],
    ratios: tuple[float, float],
    steps: int,
    round_to: int,
    round_mode: str,
    min_channels: int,
) -> None:
    model, x = mlp(*widths), torch.zeros(2, 4)
    named = {"2": ratios[1]} if allocator == "uniform" else {"0": ratios[0], "2": ratios[1]}
    options = {"round_to": round_to, "round_mode": round_mode, "min_channels": min_channels, "allocator": allocator}
    once = pc.PruningSpec(ratio=ratios[0], ratios=named, **options)  # type: ignore[arg-type]
    in_steps = pc.PruningSpec(ratio=ratios[0], ratios=named, steps=steps, **options)  # type: ignore[arg-type]
    assert widths_by(model, x, in_steps) == widths_by(model, x, once)


@pytest.mark.parametrize("allocator", ["slamp", "global", "isomorphic"])
@pytest.mark.parametrize("steps", [2, 5])
@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.8])
@pytest.mark.parametrize(("min_channels", "round_to"), [(1, 1), (8, 2), (8, 8)])
def test_one_threshold_takes_as_many_in_steps_as_at_once(
    allocator: str, steps: int, ratio: float, min_channels: int, round_to: int
) -> None:
    """Up to rounding. Where a floor stops one shot short of the ratio, the later rounds may find the rest elsewhere."""
    torch.manual_seed(0)
    model, x = small_resnet(width=32).eval(), torch.zeros(2, 1, 8, 8)
    options = {"ratio": ratio, "allocator": allocator, "min_channels": min_channels, "round_to": round_to}
    once = pc.plan(model, x, pc.PruningSpec(**options))  # type: ignore[arg-type]
    in_steps = pc.plan(model, x, pc.PruningSpec(**options, steps=steps))  # type: ignore[arg-type]
    rounding = round_to // 2 * len(once.cuts)
    asked = 288 * (1 - ratio) + 10  # but for the head
    lowest = once.channels_after if allocator == "slamp" else min(once.channels_after, asked)
    assert lowest - rounding <= in_steps.channels_after <= once.channels_after + rounding


class Parts(nn.Module):
    """One layer whose parts are cut apart from each other."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(12, 96)
        self.first, self.second = 64, 32
        self.a, self.b = nn.Linear(64, 20), nn.Linear(32, 20)

    def forward(self, x: Tensor) -> Tensor:
        one, two = self.qkv(x).split([self.first, self.second], dim=1)
        return self.a(one.relu()) + self.b(two.relu())


@pytest.mark.parametrize(
    "options",
    [
        {"ratios": {"qkv[0:64]": 0.5, "qkv[64:96]": 0.25}},
        {"ratio": 0.5, "exclude": ("qkv[64:96]",)},
        {"ratio": 0.5, "include": ("qkv[64:96]",)},
    ],
)
def test_parts_of_a_layer_keep_their_names_from_round_to_round(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    model, x = Parts().eval(), torch.zeros(2, 12)
    once = widths_by(model, x, pc.PruningSpec(**options))  # type: ignore[arg-type]
    assert once
    assert widths_by(model, x, pc.PruningSpec(**options, steps=3)) == once  # type: ignore[arg-type]


def test_whole_groups_go_down_to_the_last_one() -> None:
    """Of the groups of a convolution one is left after two rounds; the third does not cut inside of it."""
    case = NETS["grouped"]
    spec = pc.PruningSpec(ratio=0.88, allocator="global", criterion="l1_norm", normalizer="softmax", min_channels=1)
    result = pc.prune(case.build(), case.inputs(), replace(spec, group_axis="whole", steps=3), check="numeric")
    assert ("reduce", 2, (1, 16)) in {(c.group, c.width, (len(c.keep), c.positions)) for c in result.plan.cuts}


def test_rounds_that_do_not_add_up_say_so() -> None:
    """Channels that a roll ties in circles: those of the first round are others than those of the second."""
    case = AWKWARD["roll_channels"]
    with pytest.raises(pc.VerifyError, match="do not add up to one plan") as caught:
        pc.plan(case.build(), case.inputs(), pc.PruningSpec(ratio=0.5, min_channels=1, round_to=1, steps=2))
    assert caught.value.fix == "use steps=1"


def test_heads_end_where_one_shot_does() -> None:
    torch.manual_seed(0)
    model = Attending([nn.Linear(6, 32), nn.MultiheadAttention(32, 4, batch_first=True), nn.Linear(32, 5)]).eval()
    x = torch.randn(2, 5, 6)
    for ratio in 0.3, 0.5, 0.75:
        once, in_steps = (pc.PruningSpec(ratio=ratio, min_channels=1, steps=steps) for steps in (1, 4))
        assert widths_by(model, x, in_steps) == widths_by(model, x, once)


@pytest.mark.parametrize("policy", ["sum", "none"])
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_groups_stay_groups_when_rounds_leave_one_channel_of_each(layer: type[nn.Module], policy: str) -> None:
    """Whole ones would go in the next round, which no single plan does."""
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 12, 1), layer(12, 12, 3, groups=4), nn.ReLU(), nn.Conv2d(12, 5, 1)))()
    spec = pc.PruningSpec(
        ratio=0.8, criterion="l2_norm", allocator="uniform", min_channels=2, round_to=1, group_policy=policy
    )
    one, three = (pc.prune(net, torch.randn(2, 3, 6, 6), replace(spec, steps=n), check="numeric").model for n in (1, 3))
    assert three[1].groups == three[1].in_channels == 4
    assert [p.shape for p in three.parameters()] == [p.shape for p in one.parameters()]


@pytest.mark.parametrize("groups", [2, 6])
def test_groups_of_a_norm_stay_groups_too(groups: int) -> None:
    """Two lose channels of each down to the last, six go as a whole down to the last: rounds end where one step does."""
    net = seeded(lambda: nn.Sequential(nn.Conv2d(3, 12, 1), nn.GroupNorm(groups, 12), nn.ReLU(), nn.Conv2d(12, 5, 1)))()
    spec = pc.PruningSpec(ratio=0.95, criterion="l2_norm", allocator="uniform", min_channels=1, round_to=1)
    one, four = (pc.prune(net, torch.randn(2, 3, 6, 6), replace(spec, steps=n)).model for n in (1, 4))
    assert four[1].num_groups == one[1].num_groups
    assert [p.shape for p in four.parameters()] == [p.shape for p in one.parameters()]
