"""Sums over a pruned axis: of what channels compute they are exact; a count of channels changes with the width."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pruning_core as pc
from tests.models import normal, seeded


class Divided(nn.Module):
    """Channels divided by some figure of themselves."""

    def __init__(self, figure: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.figure = figure
        self.conv = nn.Conv2d(3, 16, 3)
        self.head = nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return self.head(y / self.figure(y))


def _written(y: Tensor) -> Tensor:
    out = torch.zeros_like(y)
    out[:, :, 1:].copy_(y[:, :, 1:])
    return out


COUNTS = {
    "ones": lambda y: torch.ones_like(y).sum(1, keepdim=True),
    "new_ones": lambda y: (y.new_ones(()) + torch.zeros_like(y)).sum(1, keepdim=True),
    "all_true": lambda y: (y == y).sum(1, keepdim=True),
    "cast": lambda y: 1 - (y == y).to(y.dtype).neg().sum(1, keepdim=True),
    "bits": lambda y: y.bool().sum(1, keepdim=True) + 1,
    "whole": lambda y: (4 * y).to(torch.int64).to(y.dtype).sum(1, keepdim=True).abs() + 1,
    "filled": lambda y: torch.zeros_like(y).fill_(0.5).sum(1, keepdim=True),
    "sorted_out": lambda y: 1 + torch.count_nonzero(y, 1)[:, None],
    "norm": lambda y: torch.full_like(y, 0.5).norm(dim=1, keepdim=True),
    "zero_norm": lambda y: torch.linalg.vector_norm(y, 0, 1, keepdim=True),
    "product": lambda y: torch.einsum("bchw,bchw->bhw", torch.ones_like(y), torch.ones_like(y))[:, None],
    "position": lambda y: (torch.zeros_like(y) + torch.arange(y.shape[-1])).sum(1, keepdim=True) + 1,
}
SUMS = {
    "values": lambda y: y.square().sum(1, keepdim=True) + 1,
    "masked": lambda y: (y * (y > 0)).sum(1, keepdim=True) + 1,
    "norm": lambda y: y.norm(dim=1, keepdim=True) + 1,
    "written": lambda y: _written(y).sum(1, keepdim=True).abs() + 1,
    "product": lambda y: torch.einsum("bchw,bchw->bhw", torch.ones_like(y), y)[:, None].abs() + 1,
}


def pruned(figure: Callable[[Tensor], Tensor]) -> pc.PruneResult:
    build = seeded(lambda: Divided(figure))
    return pc.prune(build(), normal((2, 3, 8, 8))(), pc.PruningSpec(ratio=0.5), check="numeric")


@pytest.mark.parametrize("name", COUNTS)
def test_a_count_of_channels_is_approximate(name: str) -> None:
    plan = pruned(COUNTS[name]).plan
    assert [group for group, _ in plan.approximate] == ["conv"]


@pytest.mark.parametrize("name", SUMS)
def test_a_sum_of_what_channels_compute_is_exact(name: str) -> None:
    plan = pruned(SUMS[name]).plan
    assert plan.cuts
    assert not plan.approximate
