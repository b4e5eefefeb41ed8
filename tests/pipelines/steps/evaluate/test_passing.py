"""A pass over a split leaves nothing behind that a training could not use."""

import functools

import numpy as np
import torch
from torch import Tensor, nn

from pipelines.data import ArraySplit
from pipelines.steps.evaluate import assess
from pipelines.tasks import Regression


@functools.cache
def scale(n: int) -> Tensor:
    return torch.linspace(1, 2, n)


class Remembering(nn.Module):
    """Its code keeps a tensor between runs, as those of BEiT, DETR and DINOv3 do."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x) * scale(1)


def test_a_model_that_was_evaluated_can_be_trained() -> None:
    rng = np.random.default_rng(0)
    split = ArraySplit(rng.normal(size=(8, 3)).astype(np.float32), rng.normal(size=8).astype(np.float32))
    model = Remembering()
    assess(model, split, Regression("mae"))
    model.train()(torch.ones(2, 3)).sum().backward()
    assert model.out.weight.grad is not None
