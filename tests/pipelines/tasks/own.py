"""The least that a task of one's own needs: a loss, metrics, the one that decides and its direction."""

from torch import Tensor
from torch.nn import functional as F
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
