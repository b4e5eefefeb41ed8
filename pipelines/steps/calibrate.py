"""Calibration data: images of the training split, and of no other."""

from typing import Protocol

import torch

import pruning_core as pc
from pipelines.data import Data, some

BATCH = 128


class CalibrationOptions(Protocol):
    """The `calibration` section of the configuration is one."""

    @property
    def samples(self) -> int: ...
    @property
    def seed(self) -> int: ...


def calibration_size(data: Data, options: CalibrationOptions) -> int:
    """How many images are used: those that were asked for, or all that the training split holds."""
    return min(options.samples, len(data.train))


def calibration_of(data: Data, options: CalibrationOptions) -> pc.Calibration | None:
    """Labelled batches, drawn at random, the same for the same seed; None where none are wanted."""
    size = calibration_size(data, options)
    if size == 0:
        return None
    x, y = some(data.train, size, torch.Generator().manual_seed(options.seed))
    parts = -(-size // BATCH)
    return pc.Calibration(list(zip(x.tensor_split(parts), y.tensor_split(parts), strict=True)), labelled=True)
