"""BatchNorm recalibration: running statistics of the pruned network, taken on the calibration data."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pruning_core.calibration import Calibration
from pruning_core.observe.reading import blaming_data, none_alone
from pruning_core.trace import call_model
from pruning_core.writes import Writes

Norm = nn.modules.batchnorm._BatchNorm


def recalibrate(pruned: nn.Module, calibration: Calibration, writes: Writes) -> None:
    """Replace the running mean and variance of every BatchNorm, in place: their averages over the samples.

    Variances are taken inside batches, so they depend a little on the batch size, as BatchNorm's own training does. A
    sample that stands alone joins the batch beside it. Nothing else of the model is changed: `writes` names what else
    its forward writes. Raises: ModelError when the model cannot be run so on the data.
    """
    copy = writes.twin(pruned)
    if not _norms(copy):
        return
    for norm in _norms(copy):
        norm.reset_running_stats()
        norm.training = True
        norm.register_forward_pre_hook(_Average(), with_kwargs=True)
    with torch.no_grad(), blaming_data():
        for batch in none_alone(calibration):
            call_model(copy, writes.given(batch.inputs))
        for norm, made in zip(_norms(pruned), _norms(copy), strict=True):
            for name, statistic in norm.named_buffers(recurse=False):
                statistic.copy_(made.get_buffer(name))


class _Average:
    """Makes the running statistics of a BatchNorm the average over the rows that it has seen."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, norm: Norm, args: tuple[Tensor, ...], kwargs: dict[str, Tensor]) -> None:
        rows = len((*args, *kwargs.values())[0])
        self.seen += rows
        norm.momentum = rows / max(self.seen, 1)


def _norms(model: nn.Module) -> list[Norm]:
    return [m for m in model.modules() if isinstance(m, Norm) and m.track_running_stats and m.running_mean is not None]
