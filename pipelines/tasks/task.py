"""The contract of a task."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torchmetrics import MetricCollection

Kept = Mapping[str, Tensor]  # what is remembered of each sample; the first axis of every tensor counts the samples


@dataclass(frozen=True, slots=True)
class Likeness:
    """How much a model answers like the source; None where the task has no such notion."""

    agreement: float | None = None  # share of equal predictions
    kl: float | None = None  # mean KL divergence from the source's answers, in nats


class Task(ABC):
    """What a model is trained for and judged by.

    `output` is what the model returns for a batch of inputs, `target` what the data set holds for them: tensors, or
    nested tuples, lists and dicts of tensors, all with the samples along their first axis.
    A task of one's own derives from this, sets `primary` and `higher_is_better`, and has `loss` and `metrics`;
    everything below has a default, which more exact answers may replace.
    """

    primary: str  # the metric that decides: a key of `metrics()`
    higher_is_better: bool

    @abstractmethod
    def loss(self, output: Any, target: Any) -> Tensor:
        """A scalar: the mean over the batch."""

    @abstractmethod
    def metrics(self) -> MetricCollection:
        """Fresh ones, to be updated with (output, target) of each batch; taken after every epoch, so cheap ones."""

    def final_metrics(self) -> MetricCollection:
        """Those of a finished model, scalars all: `metrics()` and what is too slow or too rarely wanted for each epoch."""
        return self.metrics()

    def distillation_loss(self, output: Any, teacher: Any, temperature: float) -> Tensor:
        """A scalar: how far the output is from the source model's, on the scale of `loss`. Here: the squared distance."""
        del temperature
        pairs = zip(_tensors(output), _tensors(teacher), strict=True)
        return torch.stack([F.mse_loss(own, its) for own, its in pairs]).sum()

    def mismatch(self, output: Any, target: Any) -> str | None:
        """Why a model with this output cannot be judged by this target, in words; None if it can."""
        try:
            value = self.loss(output, target)
        except (RuntimeError, ValueError, TypeError, IndexError, KeyError, AttributeError) as exc:
            return f"the loss cannot be taken: {exc}"
        return None if isinstance(value, Tensor) and value.ndim == 0 else "the loss is no scalar tensor"

    def sample_losses(self, output: Any, target: Any) -> Tensor:
        """[N]: the loss of each sample by itself."""
        samples = len(_tensors(target)[0])
        return torch.stack([self.loss(_only(output, n), _only(target, n)) for n in range(samples)])

    def keep(self, output: Any, target: Any) -> dict[str, Tensor]:
        """What is remembered of a batch for the statistics. Compact: a whole split of it stays in memory."""
        return {"loss": self.sample_losses(output, target)}

    def losses(self, kept: Kept) -> NDArray[np.float64]:
        """[N]: what a paired test compares where samples are not simply right or wrong."""
        return kept["loss"].double().numpy()

    def correct(self, kept: Kept) -> NDArray[np.bool_] | None:
        """[N]: is the prediction right? None where that is no yes or no."""
        del kept
        return None

    def summands(self, kept: Kept) -> NDArray[np.float64] | None:
        """[N, K]: numbers whose means over the samples give the primary metric by `primary_of`; None if none do."""
        del kept
        return None

    def primary_of(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        """[..., K] -> [...]: the primary metric."""
        raise NotImplementedError(f"{type(self).__name__} has summands but no primary_of: {means.shape}")

    def likeness(self, kept: Kept, source: Kept) -> Likeness:
        """Of a candidate's answers with the source's to the same samples."""
        del kept, source
        return Likeness()

    def per_class(self, kept: Kept) -> pd.DataFrame | None:
        """A line per class."""
        del kept
        return None

    def confusion(self, kept: Kept) -> NDArray[np.int64] | None:
        """[C, C]: how many samples of class i were taken for class j."""
        del kept
        return None


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]


def _only(value: Any, number: int) -> Any:
    """The batch that holds one sample of this one."""
    return pytree.tree_map(lambda leaf: leaf[number : number + 1] if isinstance(leaf, Tensor) else leaf, value)
