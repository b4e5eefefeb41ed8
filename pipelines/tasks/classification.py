"""One label per sample."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy


@dataclass(frozen=True, slots=True)
class Classification:
    """Outputs are logits [N, classes], targets labels [N]."""

    classes: int
    primary: str = "accuracy"
    higher_is_better: bool = True

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross entropy."""
        return F.cross_entropy(output, target)

    def distillation_loss(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """KL divergence of the softened answers, times temperature squared (Hinton et al. 2015)."""
        student, answers = F.log_softmax(output / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
        return F.kl_div(student, answers, reduction="batchmean", log_target=True) * temperature**2

    def metrics(self) -> MetricCollection:
        return MetricCollection({"accuracy": MulticlassAccuracy(num_classes=self.classes, average="micro")})
