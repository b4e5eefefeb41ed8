"""The contract of a task."""

from typing import Protocol

from torch import Tensor
from torchmetrics import MetricCollection


class Task(Protocol):
    """`output` is what the model returns for a batch of inputs, `target` what the data set holds for them."""

    @property
    def primary(self) -> str:
        """The metric that decides: a key of `metrics()`."""

    @property
    def higher_is_better(self) -> bool:
        """Of the primary metric."""

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """A scalar: the mean over the batch."""

    def distillation_loss(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """A scalar: how far the output is from the source model's, on the scale of `loss`."""

    def metrics(self) -> MetricCollection:
        """Fresh ones, to be updated with (output, target) of each batch."""
