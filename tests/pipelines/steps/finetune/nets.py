"""A small problem that trains in a moment, also for processes of their own."""

from typing import Any

import numpy as np
import torch
from torch import nn

from pipelines.config import Finetune
from pipelines.data import ArraySplit, Data


def blobs(samples: int, seed: int) -> ArraySplit:
    """Three well separated clouds of points."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % 3
    centres = np.array([[2.0, 0], [-2, 2], [-2, -2]])
    return ArraySplit((centres[y] + rng.normal(size=(samples, 2)) * 0.3).astype(np.float32), y)


def blob_data(samples: int = 90) -> Data:
    return Data("blobs", 3, blobs(samples, 0), blobs(30, 1), blobs(30, 2), "digest", (2,))


def net(seed: int = 0, dropout: float = 0.0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout), nn.Linear(16, 3))


def options(**changes: Any) -> Finetune:
    hardware = {"accelerator": "cpu", **changes.pop("hardware", {})}
    return Finetune(**{"epochs": 5, "learning_rate": 0.02, "batch_size": 16, "hardware": hardware, **changes})
