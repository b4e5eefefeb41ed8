"""Nets and data for what is observed of a run."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.calibration import Calibration
from pruning_core.inputs import ExampleInputs
from pruning_core.study import Subject, study
from tests.models import seeded

SAMPLES = 10


class SmallConv(nn.Module):
    """Images, a BatchNorm and an activation in place, then rows of one axis, then plain features."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 6, 3, stride=2)
        self.row = nn.Conv1d(6, 5, 2)
        self.fc1 = nn.Linear(5, 7)
        self.fc2 = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = self.conv2(x).tanh().mean(3)
        return self.fc2(F.gelu(self.fc1(self.row(x).mean(2))))


class SmallTransformer(nn.Module):
    """Two attention layouts (batch first outside, second inside), tokens and a class head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 8)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm = nn.LayerNorm(8)
        self.up = nn.Linear(8, 12)
        self.down = nn.Linear(12, 8)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        x = x + self.down(F.gelu(self.up(self.norm(x))))
        return self.head(x.mean(1))


NETS = {
    "conv": (seeded(SmallConv), (SAMPLES, 3, 7, 7)),
    "transformer": (seeded(SmallTransformer), (SAMPLES, 5, 6)),
}


def subject_of(model: nn.Module, example: Tensor) -> Subject:
    return study(model, ExampleInputs.of(example))


def data(shape: tuple[int, ...], classes: int = 4, seed: int = 5) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=rng), torch.randint(classes, shape[:1], generator=rng)


class Loader:
    """Labelled batches that count how often they are read."""

    def __init__(self, x: Tensor, target: Tensor, size: int) -> None:
        self.x, self.target, self.size = x, target, size
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        yield from zip(self.x.split(self.size), self.target.split(self.size), strict=True)


def labelled(x: Tensor, target: Tensor, size: int) -> Calibration:
    return Calibration(Loader(x, target, size), labelled=True)
