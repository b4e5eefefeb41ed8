"""BatchNorm recalibration: running statistics of the pruned network, taken on the calibration data."""

from __future__ import annotations

import torch
from torch import nn

from pruning_core.calibration import Calibration
from pruning_core.trace import call_model
from pruning_core.writes import Writes

Norm = nn.modules.batchnorm._BatchNorm


def recalibrate(pruned: nn.Module, calibration: Calibration, writes: Writes) -> None:
    """Replace the running mean and variance of every BatchNorm, in place: their averages over the batches.

    Batches weigh alike, so the result depends a little on the batch size, as BatchNorm's own training does. Nothing else
    of the model is changed: `writes` names what else its forward writes.
    """
    copy = writes.twin(pruned)
    if not _norms(copy):
        return
    for norm in _norms(copy):
        norm.reset_running_stats()
        norm.momentum, norm.training = None, True  # None: the plain average of all batches
    with torch.no_grad():
        for batch in calibration:
            call_model(copy, writes.given(batch.inputs))
        for norm, made in zip(_norms(pruned), _norms(copy), strict=True):
            for name, statistic in norm.named_buffers(recurse=False):
                statistic.copy_(made.get_buffer(name))


def _norms(model: nn.Module) -> list[Norm]:
    return [m for m in model.modules() if isinstance(m, Norm) and m.track_running_stats and m.running_mean is not None]
