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

    Batches weigh alike, so the result depends a little on the batch size, as BatchNorm's own training does. The modes of
    the modules are as before afterwards.
    """
    norms = [m for m in pruned.modules() if isinstance(m, Norm) and m.track_running_stats and m.running_mean is not None]
    if not norms:
        return
    before = [(m.momentum, m.training) for m in norms]
    try:
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum, norm.training = None, True  # None: the plain average of all batches
        with torch.no_grad():
            for batch in calibration:
                call_model(pruned, writes.given(batch.inputs))
    finally:
        for norm, (momentum, training) in zip(norms, before, strict=True):
            norm.momentum, norm.training = momentum, training
