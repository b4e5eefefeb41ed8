"""What a layer is asked for where a sum follows: never something that is not there any more, or that it cannot give."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from tests.pruning_core.compensation.test_compensation import error


class Gated(nn.Module):
    """A sum whose other branch is scaled after the layer has run, in place or not: the same function."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.other, self.hidden = nn.Conv2d(3, 8, 1), nn.Conv2d(3, 32, 3, padding=1)
        self.layer, self.scale, self.in_place = nn.Conv2d(32, 8, 3, padding=1), torch.full((1, 8, 1, 1), 0.1), in_place

    def forward(self, x: Tensor) -> Tensor:
        other = self.other(x)
        z = self.layer(F.relu(self.hidden(x)))
        if self.in_place:
            other.view(other.shape).mul_(self.scale)
        else:
            other = other * self.scale
        return other + z


def test_a_branch_that_is_written_after_the_layer_is_no_part_of_what_is_asked() -> None:
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    lost = []
    for in_place in (False, True):
        net = Gated(in_place).eval()
        spec = pc.PruningSpec(criterion="l2_norm", compensation="sequential", include=("hidden",))
        lost.append(error(net, pc.prune(net, x[:2], spec, x).model, x))
    assert lost[1] < 1.5 * lost[0]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.first_norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)
        self.second, self.second_norm = nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second_norm(self.second(F.relu(self.first_norm(self.first(x))))) + x)


@pytest.mark.parametrize("gamma", [0.0, 1e-7, 1e-4])
def test_channels_that_batchnorm_all_but_removes_keep_their_weights(gamma: float) -> None:
    torch.manual_seed(0)
    blocks = (Block(24), Block(24), Block(24))
    net = nn.Sequential(nn.Conv2d(3, 24, 3, padding=1), nn.ReLU(), *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    net.append(nn.Linear(24, 5))
    for _ in range(20):
        net(torch.randn(32, 3, 8, 8))  # running statistics that fit
    net.eval()
    blocks[2].second_norm.weight.data[:6] = gamma
    largest = float(blocks[2].second.weight.detach().abs().max())
    x = torch.randn(64, 3, 8, 8)
    spec = pc.PruningSpec(criterion="l2_norm", compensation="sequential", exclude=("0",))
    pruned = pc.prune(net, x[:2], spec, x).model
    norm = pruned.get_submodule("4.second_norm")
    assert float(pruned.get_parameter("4.second.weight").detach().abs().max()) < 10 * largest
    before = error(net, pruned, x)
    norm.get_parameter("weight").data.add_(1e-3)  # a step of fine-tuning
    assert error(net, pruned, x) == pytest.approx(before, abs=0.05)

    half = pc.prune(net.half(), x[:2].half(), spec, x.half()).model
    assert bool(half(x.half()).isfinite().all())
