"""A sum over channels is exact where a muted channel adds nothing to it; else the plan says that it is approximate."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc

Between = Callable[[Tensor], Tensor]


class Summed(nn.Module):
    def __init__(self, between: Between, read: Between) -> None:
        super().__init__()
        self.make, self.between, self.read, self.head = nn.Linear(6, 16), between, read, nn.Linear(1, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.read(self.between(self.make(x))))
        return y


def total(y: Tensor) -> Tensor:
    return y.sum(1, keepdim=True)


def approximations(model: nn.Module) -> list[str]:
    torch.manual_seed(0)
    result = pc.prune(model, torch.randn(2, 6), pc.PruningSpec(ratio=0.5, min_channels=1), check="numeric")
    assert result.report.after.params < result.report.before.params
    return [why for _, why in result.plan.approximate]


@pytest.mark.parametrize(
    "between",
    [
        torch.exp,
        torch.sigmoid,
        F.softplus,
        lambda y: y + 1,
        lambda y: y**0,
        lambda y: y * 0 + 1,
        lambda y: torch.cos(y) * 2,
        lambda y: F.relu(y - y.max(1, keepdim=True).values.detach() + 9),
        lambda y: y.masked_fill(y < 100, 1.0),
        lambda y: torch.cat([y.exp(), y], dim=1),
        lambda y: y.clone().fill_(1.0) * y.cosh(),
    ],
)
def test_what_a_muted_channel_still_adds_makes_a_sum_approximate(between: Between) -> None:
    why = approximations(Summed(between, total))
    assert "sum runs over values that are not zero where their channel is" in why or any("max runs" in w for w in why)


@pytest.mark.parametrize(
    "between",
    [
        torch.tanh,
        F.gelu,
        F.silu,
        torch.square,
        lambda y: y.abs().sqrt(),
        lambda y: y * torch.sigmoid(y),
        lambda y: y.exp() - 1 + y * 3,
        lambda y: y.exp() * y,
        lambda y: torch.where(y > 0, y, 0.1 * y),
        lambda y: y.expm1().clamp(-1, 1),
        lambda y: y * 5,
    ],
)
def test_what_adds_nothing_leaves_it_exact(between: Between) -> None:
    assert approximations(Summed(between, total)) == []


def test_a_weight_takes_out_what_is_not_zero() -> None:
    """The muted channel's column of the next layer is gone in both."""
    model = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Linear(16, 3))
    assert approximations(model) == []


def test_a_product_of_two_that_are_not_zero_is_a_sum_like_any_other() -> None:
    pair = Summed(torch.exp, lambda y: (y.unsqueeze(1) @ y.unsqueeze(2)).squeeze(2))
    assert any("matmul runs over" in why or "bmm runs over" in why for why in approximations(pair))
    one = Summed(lambda y: y, lambda y: (y.unsqueeze(1) @ y.exp().unsqueeze(2)).squeeze(2))
    assert approximations(one) == []
