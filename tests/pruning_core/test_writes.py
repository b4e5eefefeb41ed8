"""Forwards that write in place: the caller's tensors stay as they are, and every run starts from the same values."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from tests.models import seeded


class Preprocesses(nn.Module):
    """Normalises its input, in place if asked to."""

    def __init__(self, in_place: bool = True, reads_values: bool = False) -> None:
        super().__init__()
        self.in_place, self.reads_values = in_place, reads_values
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.5).div_(0.25) if self.in_place else (x - 0.5) / 0.25
        if self.reads_values and x.mean().item() > 1000:
            return self.fc(x.new_zeros(len(x), 16))
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("reads_values", [False, True])
@pytest.mark.parametrize("allocator", ["uniform", "slamp"])
@pytest.mark.parametrize("compensation", ["none", "sequential", "least_squares"])
def test_data_that_a_forward_writes(compensation: str, allocator: str, reads_values: bool) -> None:
    spec = pc.PruningSpec(
        compensation=compensation, allocator=allocator, criterion="reconstruction", min_channels=2, recalibrate_bn=True
    )
    example, data = images(2), images(32, seed=1)
    model = seeded(lambda: Preprocesses(reads_values=reads_values))()
    pruned = pc.prune(model, example, spec, data, check="numeric")
    assert torch.equal(example, images(2))
    assert torch.equal(data, images(32, seed=1))
    gently = seeded(lambda: Preprocesses(in_place=False, reads_values=reads_values))()
    expected = pc.prune(gently, example, spec, data)
    with torch.no_grad():
        torch.testing.assert_close(pruned.model(images(4)), expected.model(images(4)))


@pytest.mark.parametrize("criterion", ["nuclear_norm", "taylor"])
def test_data_that_a_criterion_reads(criterion: str) -> None:
    data, labels = images(8), torch.arange(8) % 5
    calibration = pc.Calibration([(data, labels)], labelled=True)
    pc.plan(seeded(Preprocesses)(), images(2), pc.PruningSpec(criterion=criterion, min_channels=2), calibration)
    assert torch.equal(data, images(8))


def test_running_statistics_of_a_forward_that_writes_its_data() -> None:
    model = seeded(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 3)))
    data = images(8) - 0.5
    spec = pc.PruningSpec(recalibrate_bn=True, compensation="none", criterion="l2_norm", min_channels=2)
    pc.prune(model(), images(2), spec, [data])
    assert torch.equal(data, images(8) - 0.5)


@pytest.mark.parametrize("figure", ["change", "kl"])
def test_data_that_is_evaluated(figure: str) -> None:
    data = images(8)
    found = pc.sensitivity(
        seeded(Preprocesses)(), images(2), images(8), (0.5,), pc.PruningSpec(min_channels=2), evaluation=[data], figure=figure
    )
    assert torch.equal(data, images(8))
    gently = seeded(lambda: Preprocesses(in_place=False))()
    expected = pc.sensitivity(gently, images(2), images(8), (0.5,), pc.PruningSpec(min_channels=2), figure=figure)
    for row, other in zip(found.rows, expected.rows, strict=True):
        assert row.figure == pytest.approx(other.figure, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_numeric_check_of_a_forward_that_writes_its_input(dtype: torch.dtype) -> None:
    example = images(2).to(dtype)
    result = pc.prune(seeded(Preprocesses)().to(dtype), example, pc.PruningSpec(min_channels=2), check="numeric")
    assert result.report.mask_error is not None
    assert torch.equal(example, images(2).to(dtype))
