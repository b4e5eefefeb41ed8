"""Tensors among a model's outputs, whatever holds them."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributions import Categorical, Distribution, Independent, Normal
from torch.nn import functional as F

import pruning_core as pc
from pruning_core import tree
from tests.models import seeded


class Policy(nn.Module):
    """A value beside a distribution over actions."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.actions, self.value = nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(32, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Distribution]:
        x = F.relu(self.body(x))
        return self.value(x), Categorical(logits=self.actions(x), validate_args=False)


def test_tensors_of_a_distribution_are_outputs() -> None:
    x = torch.randn(2, 8, generator=torch.Generator().manual_seed(0))
    result = pc.prune(seeded(Policy)(), x, pc.PruningSpec(), check="numeric")
    assert [cut.layers for cut in result.plan.cuts] == [("body",)]
    assert result.model(x)[1].logits.shape == (2, 16)
    assert {lock.group: lock.reason for lock in result.plan.locked}["actions"] == "locked: reaches the model output"


class Slotted:
    __slots__ = ("inner", "itself")

    def __init__(self, inner: object) -> None:
        self.inner, self.itself = inner, self


class DynamicCache:
    def __init__(self, keys: Tensor) -> None:
        self.keys = keys


@dataclass
class Record:
    first: Tensor
    rest: object


def test_what_holds_tensors() -> None:
    a, b, c = torch.ones(1), torch.ones(2), torch.ones(3)
    assert list(tree.held({"x": [a, Record(b, Slotted(c))]})) == [a, b, c]
    assert [t.shape for t in tree.held(Independent(Normal(b, torch.ones(2)), 1))] == [(2,), (2,)]
    assert list(tree.held((a, DynamicCache(b), nn.Linear(2, 2), torch.float32, "text", 1, None, len, torch.Size([3])))) == [
        a
    ]
