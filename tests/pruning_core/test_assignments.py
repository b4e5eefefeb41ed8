"""Numbers assigned to parts of tensors: models that do it are planned, proved and calibrated like others."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pruning_core as pc
from pruning_core.coupling.rules import has_rule
from pruning_core.inputs import ExampleInputs
from pruning_core.trace import meta_twin, real_twin, record
from pruning_core.twin import named_tensors
from tests.models import seeded


def _slice(y: Tensor) -> None:
    y[1:, :4] = 0.5


def _one(y: Tensor) -> None:
    y[0] = 1


def _ellipsis(y: Tensor) -> None:
    y[..., None, -1] = 2.0


def _all(y: Tensor) -> None:
    y[:] = True


def _picked(y: Tensor) -> None:
    y[:, [0, 2]] = 0.5


def _both(y: Tensor) -> None:
    y[1:, torch.tensor([0, 3], device=y.device)] = -1.0


def _mask(y: Tensor) -> None:
    y[torch.ones(len(y), dtype=torch.bool, device=y.device)] = 7.0


FORMS = (_slice, _one, _ellipsis, _all, _picked, _both, _mask)


class Assigning(nn.Module):
    """A mask that is filled in the forward, and what it is multiplied with."""

    def __init__(self, fill: Callable[[Tensor], None]) -> None:
        super().__init__()
        self.fill = fill
        self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones_like(x)
        self.fill(mask)
        return self.c(self.b(self.a(x * mask).relu()).relu())


@pytest.mark.parametrize("fill", FORMS)
def test_the_same_calls_with_and_without_values(fill: Callable[[Tensor], None]) -> None:
    model, x = seeded(lambda: Assigning(fill))(), torch.randn(5, 8)
    runs = []
    for real in (False, True):
        twin = (real_twin if real else meta_twin)(model)
        trace = record(twin, ExampleInputs.of(x), named_tensors(twin), keep_whole=has_rule, real=real)
        assert trace.error is None
        runs.append([op.func for op in trace.ops])
    assert runs[0] == runs[1]


@pytest.mark.parametrize("criterion", ["activation", "reconstruction"])
@pytest.mark.parametrize("fill", FORMS)
def test_they_are_calibrated_and_mended(fill: Callable[[Tensor], None], criterion: str) -> None:
    model, x = seeded(lambda: Assigning(fill))(), torch.randn(5, 8)
    data = [torch.randn(5, 8) for _ in range(8)]
    spec = pc.PruningSpec(ratio=0.5, criterion=criterion, allocator="uniform", min_channels=1)
    result = pc.prune(model, x, spec, data, check="numeric")
    assert len(result.plan.cuts) == 2
    assert result.report.repairs


def test_a_width_that_is_assigned_is_seen() -> None:
    """It would be another number in the pruned model: the layer stays whole."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 32), nn.Linear(32, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = self.a(x).clone()
            y[:, :4] = float(y.shape[1])
            return self.b(y)

    with pytest.raises(pc.ModelError, match="a number that is made into a tensor depends on a size"):
        pc.plan(seeded(Wide)(), torch.randn(5, 8), pc.PruningSpec(ratio=0.5))
