"""Iterative pruning ends as one plan for the original model."""

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.iterative import composed
from pruning_core.plan import TensorSlice
from tests.models import NETS


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
