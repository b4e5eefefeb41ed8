"""One or several numbers per sample."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchmetrics import MeanAbsoluteError, MeanSquaredError, Metric, MetricCollection, R2Score

from pipelines.names import did_you_mean
from pipelines.tasks.task import Kept, Task

METRICS = ("mae", "rmse", "r2")


@dataclass(frozen=True, slots=True)
class Regression(Task):
    """Outputs and targets are numbers [N] or [N, D]; an output [N, 1] goes with a target [N].

    `primary`: mae, rmse or r2 (the mean over D of each one's own).
    """

    primary: str = "mae"

    def __post_init__(self) -> None:
        if self.primary not in METRICS:
            raise ValueError(f"primary {self.primary!r}; {did_you_mean(self.primary, METRICS)}")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        return self.primary == "r2"

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean squared error."""
        return F.mse_loss(*_columns(output, target))

    def distillation_loss(self, output: Tensor, teacher: Tensor, temperature: float) -> Tensor:
        """Mean squared distance from the teacher's numbers; there is nothing to soften."""
        del temperature
        return F.mse_loss(output, teacher)

    def metrics(self) -> MetricCollection:
        return MetricCollection({self.primary: _metric(self.primary)})

    def final_metrics(self) -> MetricCollection:
        return MetricCollection({name: _metric(name) for name in METRICS})

    def mismatch(self, output: object, target: object) -> str | None:
        if isinstance(output, Tensor) and isinstance(target, Tensor):
            own, its = output.flatten(1).shape[1:], target[:, None].flatten(1).shape[1:]
            if own == its and target.is_floating_point():
                return None
            return f"the model answers {own.numel()} numbers per sample; the targets have {its.numel()}, {target.dtype}"
        return f"the model answers {type(output).__name__}, not a tensor"

    def sample_losses(self, output: Tensor, target: Tensor) -> Tensor:
        own, its = _columns(output, target)
        return (own - its).square().mean(dim=1)

    def keep(self, output: Tensor, target: Tensor) -> dict[str, Tensor]:
        own, its = _columns(output, target)
        return {"output": own, "target": its, "loss": self.sample_losses(output, target)}

    def summands(self, kept: Kept) -> NDArray[np.float64]:
        """|e|, e^2, y, y^2 of each of the D numbers: [N, 4 D]"""
        y = kept["target"].double().numpy()
        error = kept["output"].double().numpy() - y
        return np.concatenate([np.abs(error), error**2, y, y**2], axis=1)

    def primary_of(self, means: NDArray[np.float64]) -> NDArray[np.float64]:
        absolute, squared, y, y_squared = np.split(means, 4, axis=-1)
        if self.primary == "mae":
            return cast(NDArray[np.float64], absolute.mean(axis=-1))
        if self.primary == "rmse":
            return cast(NDArray[np.float64], np.sqrt(squared.mean(axis=-1)))
        variance = np.maximum(y_squared - y**2, np.finfo(np.float64).tiny)  # a resample may hold one sample only
        return cast(NDArray[np.float64], (1 - squared / variance).mean(axis=-1))


def _columns(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Both as [N, D]."""
    return output[:, None].flatten(1), target[:, None].flatten(1)


class _Mae(MeanAbsoluteError):  # noqa: N818  no exception
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(*_columns(preds, target))


class _Rmse(MeanSquaredError):  # noqa: N818
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(*_columns(preds, target))


class _R2(R2Score):
    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(*_columns(preds, target))


def _metric(name: str) -> Metric:
    made: dict[str, Callable[[], Metric]] = {"mae": _Mae, "rmse": lambda: _Rmse(squared=False), "r2": _R2}
    return made[name]()
