"""The least that a task of one's own needs: a loss, metrics, the one that decides and its direction. And loaders."""

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from torchmetrics import MeanMetric, MetricCollection

from pipelines.tasks import Task


class Shortfall(MeanMetric):
    """Share of wrong answers."""

    def update(self, output: Tensor, target: Tensor) -> None:  # type: ignore[override]
        super().update((output.argmax(dim=1) != target).float())


class FewMistakes(Task):
    primary = "error_rate"
    higher_is_better = False

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"error_rate": Shortfall()})


def loaders() -> tuple[DataLoader[tuple[Tensor, ...]], ...]:
    """Train, validation and test of noise."""
    x = torch.randn(60, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return tuple(DataLoader(TensorDataset(part, torch.arange(20) % 10), 20) for part in x.split(20))
