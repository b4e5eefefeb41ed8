"""From what is stored to what a model sees, batch by batch, so that bytes may stay bytes in memory."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pixels:
    """(x / divisor - mean) / std, with one mean and std per channel, or without where there are none."""

    divisor: float = 1.0
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    def __call__(self, x: Tensor) -> Tensor:
        """x [n, C, ...] of any dtype -> float32 of the same shape."""
        x = x.to(torch.float32)
        if self.divisor != 1.0:
            x = x / self.divisor
        if self.mean:
            shape = (1, -1, *[1] * (x.ndim - 2))
            x = (x - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)
        return x


AS_THEY_ARE = Pixels()
