"""Rectangles of two classes on noise, and a net that finds their pixels: with a skip connection and interpolation."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class TinySegmenter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.coarse = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Sequential(nn.Conv2d(48, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 3, 1))

    def forward(self, x: Tensor) -> Tensor:
        """x [N, 3, 16, 16] -> logits [N, 3, 16, 16]"""
        fine = self.fine(x)
        coarse = F.interpolate(self.coarse(fine), scale_factor=2.0, mode="nearest")
        logits: Tensor = self.head(torch.cat([fine, coarse], dim=1))
        return logits


def rectangles(count: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """x [N, 3, 16, 16], y [N, 16, 16]: 0 is the background, 255 a border that counts nowhere."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 0.2, (count, 3, 16, 16)).astype(np.float32)
    y = np.zeros((count, 16, 16), np.int64)
    for picture, labels in zip(x, y, strict=True):
        kind = rng.integers(1, 3)
        left, top = rng.integers(0, 8, 2)
        width, height = rng.integers(4, 8, 2)
        labels[top : top + height, left : left + width] = kind
        labels[top, left : left + width] = 255
        picture[kind, top : top + height, left : left + width] += 1
    return x, y
