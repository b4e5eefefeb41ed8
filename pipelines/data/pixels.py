"""From what is stored to what a model sees, batch by batch, so that bytes may stay bytes in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pipelines.data.request import ImagesRequest
from pipelines.errors import DataError


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


def pixels_of(images: ImagesRequest, divisor: float, sample_shape: Sequence[int], where: str) -> Pixels:
    """What the recipe asks for, for inputs of that shape [C, ...]. Raises DataError."""
    mean, std = tuple(images.mean), tuple(images.std)
    if mean and len(mean) != sample_shape[0]:
        text = f"there are {len(mean)} means for inputs {list(sample_shape)}"
        raise DataError(text, f"{where}, data.images.mean", f"give {sample_shape[0]}, one per channel")
    return Pixels(divisor, mean, std)
