"""Plans: frozen, checked at birth, the same after JSON, refused by other models."""

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import pruning_core as pc
from pruning_core.channels import from_ranges, to_ranges
from tests.awkward import AWKWARD
from tests.models import NETS

CASES = {**NETS, **AWKWARD}


@given(st.sets(st.integers(0, 300), min_size=1))
def test_ranges_round_trip(numbers: set[int]) -> None:
    ordered = tuple(sorted(numbers))
    assert from_ranges(to_ranges(ordered)) == ordered


def test_ranges_are_short() -> None:
    assert to_ranges((0, 1, 2, 5, 7, 8)) == "0-2,5,7-8"


@pytest.mark.parametrize("keep", [(), (1, 0), (0, 0), (-1, 2), (0, 8)])
def test_a_cut_is_checked_at_birth(keep: tuple[int, ...]) -> None:
    with pytest.raises(pc.PlanError, match="group 'conv'"):
        pc.GroupCut(group="conv", layers=("conv",), width=8, keep=keep)


@pytest.mark.parametrize("name", sorted(CASES)[::6])
def test_json_round_trip_and_apply_alone(name: str) -> None:
    case = CASES[name]
    model, inputs = case.build(), case.inputs()
    result = pc.prune(model, inputs, pc.PruningSpec(ratio=0.5))
    again = pc.PruningPlan.from_json(result.plan.to_json())
    assert again == result.plan
    twin = pc.apply(model, again, inputs if name == "data_dependent" else None)  # that one branches on their values
    for (name_a, a), (name_b, b) in zip(twin.state_dict().items(), result.model.state_dict().items(), strict=True):
        assert name_a == name_b
        assert torch.equal(a, b)


@pytest.mark.parametrize("allocator", ["uniform", "slamp"])
@given(ratio=st.floats(0, 0.95), round_to=st.sampled_from([1, 2, 8]), floor=st.integers(1, 8))
def test_kept_counts_are_bounded_and_aligned(allocator: str, ratio: float, round_to: int, floor: int) -> None:
    spec = pc.PruningSpec(ratio=ratio, allocator=allocator, round_to=round_to, min_channels=floor)
    plan = pc.plan(NETS["residual"].build(), NETS["residual"].inputs(), spec)
    for cut in plan.cuts:
        kept = len(cut.keep) * cut.positions
        assert min(floor, cut.width) <= kept < cut.width * cut.positions
        assert kept % round_to == 0 or kept == max(floor, 1)


@given(a=st.floats(0, 0.95), b=st.floats(0, 0.95))
def test_a_higher_ratio_never_keeps_more(a: float, b: float) -> None:
    low, high = sorted((a, b))
    net = NETS["depthwise_separable"]
    counts = [pc.plan(net.build(), net.inputs(), pc.PruningSpec(ratio=r)).channels_after for r in (low, high)]
    assert counts[1] <= counts[0]


def test_planning_twice_gives_one_plan() -> None:
    net = NETS["dense_concat"]
    plans = [pc.plan(net.build(), net.inputs(), pc.PruningSpec()) for _ in range(2)]
    assert plans[0].to_json() == plans[1].to_json()


def test_ratio_zero_changes_nothing() -> None:
    net = NETS["residual"]
    result = pc.prune(net.build(), net.inputs(), pc.PruningSpec(ratio=0.0), check="numeric")
    assert not result.plan.slices
    assert result.report.params_after == result.report.params_before


def test_another_model_is_refused_and_the_difference_named() -> None:
    net = NETS["conv_stack"]
    plan = pc.plan(net.build(), net.inputs(), pc.PruningSpec())
    other = net.build()
    other.conv2 = nn.Conv2d(16, 48, 3)
    other.conv3 = nn.Conv2d(48, 24, 3)
    with pytest.raises(pc.PlanError) as caught:
        pc.apply(other, plan)
    assert caught.value.where == "conv2.weight"
    assert "[32, 16, 3, 3]" in caught.value.what
    assert "[48, 16, 3, 3]" in caught.value.what


def test_the_same_tensors_in_other_calls_are_refused() -> None:
    net = NETS["conv_stack"]
    plan = pc.plan(net.build(), net.inputs(), pc.PruningSpec())
    other = net.build()
    other.conv1.register_forward_hook(lambda _m, _i, out: out * 2)  # type: ignore[union-attr]
    with pytest.raises(pc.PlanError, match="other calls"):
        pc.apply(other, plan)


def test_damaged_json_is_refused() -> None:
    net = NETS["conv_stack"]
    data = json.loads(pc.plan(net.build(), net.inputs(), pc.PruningSpec()).to_json())
    for text in ("{", "{}", "[]", json.dumps({**data, "format": 99}), json.dumps({**data, "cuts": [{}]})):
        with pytest.raises(pc.PlanError):
            pc.PruningPlan.from_json(text)
    data["slices"][0]["keep"] = "0-999"
    with pytest.raises(pc.PlanError, match="keep must be sorted"):
        pc.PruningPlan.from_json(json.dumps(data))


def test_a_plan_prints_what_goes_and_what_stays() -> None:
    net = NETS["residual"]
    text = str(pc.plan(net.build(), net.inputs(), pc.PruningSpec()))
    assert "50%" in text
    assert "locked: reaches the model output" in text


def test_another_activation_is_another_model() -> None:
    class Active(nn.Module):
        def __init__(self, act: str) -> None:
            super().__init__()
            self.a, self.b, self.act = nn.Linear(4, 16), nn.Linear(16, 2), act

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.b(getattr(torch, self.act)(self.a(x)))

    plan = pc.plan(Active("relu"), torch.randn(2, 4), pc.PruningSpec())
    with pytest.raises(pc.PlanError, match="other calls"):
        pc.apply(Active("tanh"), plan)


def test_channel_numbers_in_buffers_are_counted_anew() -> None:
    """A plan knows the new numbers; they survive JSON and disk, and a model with other numbers is refused."""
    case = CASES["index_channels"]
    model, x = case.build(), case.inputs()
    result = pc.prune(model, x, pc.PruningSpec(ratio=0.5), check="numeric")
    kept = {(c.tensor, c.axis): c.keep for c in result.plan.slices}
    old, new = (dict(m.named_buffers())["order"].tolist() for m in (model, result.model))
    assert [kept["conv1.weight", 0][k] for k in new] == [k for k in old if k in kept["conv1.weight", 0]]
    again = pc.PruningPlan.from_json(result.plan.to_json())
    assert again == result.plan
    assert pc.apply(model, again).get_buffer("order").tolist() == new
    model.get_buffer("order").copy_(torch.arange(48))
    with pytest.raises(pc.PlanError, match="other channel numbers"):
        pc.apply(model, again)


def test_options_that_the_criterion_does_not_heed_are_told() -> None:
    net = NETS["residual"]
    model, x = net.build(), torch.randn(12, 3, 16, 16)
    said = "not heeded: normalizer 'softmax', policy 'max': reconstruction compares damages as they are"
    result = pc.prune(model, x[:2], pc.PruningSpec(normalizer="softmax", policy="max"), x)
    assert result.plan.notes == (said,)
    assert said in result.report.notes
    assert said in str(result.plan)
    usual = pc.plan(model, x[:2], pc.PruningSpec(), x)
    assert usual.notes == ()
    assert usual.cuts == result.plan.cuts, "they are not heeded indeed"
    assert pc.plan(model, x[:2], pc.PruningSpec(criterion="l2_norm", normalizer="softmax", policy="max"), x).notes == ()
