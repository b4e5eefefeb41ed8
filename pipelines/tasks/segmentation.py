"""One label per pixel."""

from dataclasses import dataclass
from typing import cast

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from pipelines.tasks.task import Kept, Likeness, Task


@dataclass(frozen=True, slots=True)
class Segmentation(Task):
    """Outputs are logits [N, classes, H, W], targets labels [N, H, W]; pixels labelled `ignore` count nowhere.

    mIoU: intersection over union of each class over all pixels of the split, averaged over the classes that occur.
    """

    classes: int
    ignore: int = 255
    primary: str = "miou"
    higher_is_better: bool = True

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross entropy of the pixels that count."""
        return F.cross_entropy(output, target, ignore_index=self.ignore)

    def distillation_loss(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """KL divergence of the softened answers, mean over all pixels, times temperature squared."""
        student, answers = F.log_softmax(output / temperature, dim=1), F.log_softmax(teacher / temperature, dim=1)
        pixels = output.numel() / output.shape[1]
        return F.kl_div(student, answers, reduction="sum", log_target=True) / pixels * temperature**2

    def metrics(self) -> MetricCollection:
        return MetricCollection({"miou": MulticlassJaccardIndex(num_classes=self.classes, ignore_index=self.ignore)})

    def final_metrics(self) -> MetricCollection:
        metrics = self.metrics()
        accuracy = MulticlassAccuracy(num_classes=self.classes, average="micro", ignore_index=self.ignore)
        metrics.add_metrics({"pixel_accuracy": accuracy})
        return metrics

    def mismatch(self, output: object, target: object) -> str | None:
        wanted = (self.classes, *target.shape[1:]) if isinstance(target, Tensor) else ()
        if isinstance(output, Tensor) and output.ndim > 2 and tuple(output.shape[1:]) == wanted:
            return None
        shape = list(output.shape[1:]) if isinstance(output, Tensor) else type(output).__name__
        return f"the model answers {shape} per image, not the logits {list(wanted)} of each class at each pixel"

    def sample_losses(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean over the pixels of each image that count; 0 for an image without any."""
        losses = F.cross_entropy(output, target, ignore_index=self.ignore, reduction="none").flatten(1).sum(dim=1)
        counted = (target != self.ignore).flatten(1).sum(dim=1)
        return losses / counted.clamp(min=1)

    def keep(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Predicted classes [N, H, W], and per image and class the pixels that are both, predicted, and there [N, C]."""
        predicted, counts = output.argmax(dim=1), target != self.ignore
        small = torch.uint8 if self.classes <= 255 else torch.int16
        return {
            "predicted": torch.where(counts, predicted, 0).to(small),
            "counts": counts,
            "both": self._per_class(torch.where(counts & (predicted == target), predicted, -1)),
            "answered": self._per_class(torch.where(counts, predicted, -1)),
            "present": self._per_class(torch.where(counts, target, -1)),
            "loss": self.sample_losses(output, target),
        }

    def _per_class(self, labels: Tensor) -> Tensor:
        """labels [N, H, W], -1 = none -> pixels of each class [N, C]"""
        images = torch.arange(len(labels), device=labels.device).view(-1, *[1] * (labels.ndim - 1))
        cells = (images * (self.classes + 1) + labels + 1).flatten()
        counts = torch.bincount(cells, minlength=len(labels) * (self.classes + 1))
        return counts.view(len(labels), self.classes + 1)[:, 1:].int()

    def summands(self, kept: Kept) -> NDArray[np.float64]:
        return torch.cat([kept["both"], kept["answered"], kept["present"]], dim=1).double().numpy()

    def primary_of(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        both, answered, present = np.split(means, 3, axis=-1)
        union = answered + present - both
        occurs = union > 0
        if 0 <= self.ignore < self.classes:  # a class like the others to the model, but none that counts
            occurs[..., self.ignore] = False
        iou = np.divide(both, union, out=np.zeros_like(both), where=occurs)
        return cast(NDArray[np.float64], iou.sum(axis=-1) / np.maximum(occurs.sum(axis=-1), 1))

    def likeness(self, kept: Kept, source: Kept) -> Likeness:
        """Share of the pixels that count; the source's probabilities of each pixel are too much to keep, so no KL."""
        counts = kept["counts"]
        same = (kept["predicted"] == source["predicted"]) & counts
        return Likeness(agreement=int(same.sum()) / max(1, int(counts.sum())))

    def per_class(self, kept: Kept) -> pd.DataFrame:
        both, answered, present = (kept[name].long().sum(dim=0).numpy() for name in ("both", "answered", "present"))
        with np.errstate(invalid="ignore", divide="ignore"):
            iou, recall, precision = both / (answered + present - both), both / present, both / answered
        columns = {"class": np.arange(self.classes), "pixels": present, "answers": answered}
        return pd.DataFrame({**columns, "iou": iou, "recall": recall, "precision": precision})
