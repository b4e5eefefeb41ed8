"""Live runs are counted as the trace was, whatever memory looks like and wherever they are."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from tests.models import seeded


class Contiguous(nn.Module):
    """Ends as attentions of Hugging Face do. On the processor the kernel gives heads back behind the tokens already."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v, self.out = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (layer(x).unflatten(2, (2, -1)).transpose(1, 2) for layer in (self.q, self.k, self.v))
        heads = F.scaled_dot_product_attention(q, k, v)
        return self.out(heads.transpose(1, 2).contiguous().flatten(2))


@pytest.mark.parametrize("compensation", ["none", "least_squares", "sequential"])
def test_how_a_kernel_lays_out_its_result_does_not_matter(compensation: str) -> None:
    model, x = seeded(Contiguous)(), torch.randn(2, 5, 8)
    spec = pc.PruningSpec(ratio=0.5, criterion="activation", min_channels=1, reshape_axis="inner", compensation=compensation)
    result = pc.prune(model, x, spec, [torch.randn(2, 5, 8) for _ in range(8)], check="numeric")
    assert result.plan.cuts


class Routed(nn.Module):
    """Which of two equal experts runs depends on the sign of the data."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.out = nn.Linear(8, 16), nn.Linear(8, 16), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        expert = self.one if x.sum() > 0 else self.two
        return self.out(expert(x).relu())


def test_a_layer_that_stands_in_for_another_is_seen() -> None:
    """The same calls on the same shapes: only the weights tell. What `two` gives must not count as what `one` does."""
    model, x = seeded(Routed)(), torch.ones(4, 8)
    with pytest.raises(pc.ModelError, match="other calls on the calibration data"):
        pc.prune(model, x, pc.PruningSpec(ratio=0.5, criterion="activation", min_channels=1), [x, -x])
