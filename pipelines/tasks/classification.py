"""One label per sample."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassCalibrationError

from pipelines.tasks.task import Kept, Likeness, Task

TOP = 5
BINS = 15  # of the calibration error, as in Guo et al., On Calibration of Modern Neural Networks, ICML 2017


@dataclass(frozen=True, slots=True)
class Classification(Task):
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

    def final_metrics(self) -> MetricCollection:
        """Accuracy, the share of samples whose class is among the best five, the expected calibration error."""
        metrics = self.metrics()
        if self.classes > TOP:
            top = MulticlassAccuracy(num_classes=self.classes, average="micro", top_k=TOP)
            metrics.add_metrics({f"top{TOP}_accuracy": top})
        metrics.add_metrics({"calibration_error": _CalibrationError(num_classes=self.classes, n_bins=BINS)})
        return metrics

    def mismatch(self, output: object, target: object) -> str | None:
        del target
        if not isinstance(output, Tensor):
            return f"the model answers a {type(output).__name__}, not a tensor of logits"
        if output.ndim != 2:
            return f"the model answers {list(output.shape)}, not one logit per class"
        if output.shape[1] == self.classes:
            return None
        more = f"; if the data only lack samples of the others, set data.classes to {output.shape[1]}"
        known = f"the model knows {output.shape[1]} classes, the data set has {self.classes}"
        return known + (more if output.shape[1] > self.classes else "")

    def sample_losses(self, output: Tensor, target: Tensor) -> Tensor:
        return F.cross_entropy(output, target, reduction="none")

    def keep(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        return {"logits": output.float(), "target": target, "loss": self.sample_losses(output, target)}

    def correct(self, kept: Kept) -> NDArray[np.bool_]:
        found: NDArray[np.bool_] = (kept["logits"].argmax(dim=1) == kept["target"]).numpy()
        return found

    def summands(self, kept: Kept) -> NDArray[np.float64]:
        return self.correct(kept).astype(np.float64)[:, None]

    def primary_of(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        return means[..., 0]

    def likeness(self, kept: Kept, source: Kept) -> Likeness:
        """KL(source || candidate) of the class probabilities."""
        own, its = kept["logits"].double(), source["logits"].double()
        agreement = (own.argmax(dim=1) == its.argmax(dim=1)).double().mean()
        kl = F.kl_div(own.log_softmax(dim=1), its.log_softmax(dim=1), reduction="batchmean", log_target=True)
        return Likeness(agreement=float(agreement), kl=max(0.0, float(kl)))

    def confusion(self, kept: Kept) -> NDArray[np.int64]:
        answers = max(self.classes, kept["logits"].shape[1])
        pairs = kept["target"] * answers + kept["logits"].argmax(dim=1)
        return torch.bincount(pairs, minlength=answers**2).view(answers, answers).numpy()

    def per_class(self, kept: Kept) -> pd.DataFrame:
        """Samples, recall (the class's own accuracy), precision, F1; empty where nothing can be said."""
        return class_table(self.confusion(kept))


def class_table(confusion: NDArray[np.int64]) -> pd.DataFrame:
    """A line per class of a confusion matrix [C, C], rows the truth."""
    right = np.diag(confusion).astype(np.float64)
    present, answered = confusion.sum(axis=1), confusion.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        recall, precision = right / present, right / answered
        f1 = 2 * right / (present + answered)
    columns = {"class": np.arange(len(confusion)), "samples": present, "answers": answered}
    return pd.DataFrame({**columns, "recall": recall, "precision": precision, "f1": f1})


class _CalibrationError(MulticlassCalibrationError):
    """Of logits, always: the original takes a batch whose logits all lie between 0 and 1 for probabilities."""

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.softmax(dim=1), target)
