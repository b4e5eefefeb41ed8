"""Models whose code remembers tensors: they go on as before, whoever has run them, and are calibrated like others."""

import functools
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import pruning_core as pc
from pruning_core.inputs import ExampleInputs
from pruning_core.memos import remembering
from pruning_core.study import study
from tests.models import seeded

DATA = [torch.randn(4, 8, generator=torch.Generator().manual_seed(k)) for k in range(6)]


@functools.lru_cache(maxsize=4)
def bounded(n: int) -> Tensor:
    return torch.arange(n).flip(0).roll(1)


@functools.cache
def unbounded(n: int) -> dict[str, Tensor]:
    return {"order": torch.arange(n).flip(0).roll(1)}


class Remembering(nn.Module):
    """Its tokens are put in an order that is computed once, and used twice."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def order(self, n: int) -> Tensor:
        return bounded(n) if self.kind == "bounded" else unbounded(n)["order"]

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()[self.order(len(x))]
        return self.c(self.b(y).relu()[self.order(len(x))])


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    bounded.cache_clear()
    unbounded.cache_clear()


KINDS = ("bounded", "unbounded")


@pytest.mark.parametrize("kind", KINDS)
def test_the_callers_model_finds_no_tensors_of_ours(kind: str) -> None:
    model = seeded(lambda: Remembering(kind))()
    with torch.no_grad():
        pc.plan(model, DATA[0], pc.PruningSpec(ratio=0.5, min_channels=1))
        assert model(DATA[0]).device.type == "cpu"


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_before_makes_no_difference(kind: str) -> None:
    model = seeded(lambda: Remembering(kind))()
    cold = study(model, ExampleInputs.of(DATA[0])).trace
    model(DATA[0])
    warm = study(model, ExampleInputs.of(DATA[0])).trace
    assert [op.func for op in cold.ops] == [op.func for op in warm.ops]
    assert len(cold.memos) == 1


@pytest.mark.parametrize("criterion", ["l2_norm", "reconstruction"])
@pytest.mark.parametrize("kind", KINDS)
def test_they_are_proved_calibrated_and_mended(kind: str, criterion: str) -> None:
    model = seeded(lambda: Remembering(kind))()
    spec = pc.PruningSpec(ratio=0.5, criterion=criterion, min_channels=1)
    result = pc.prune(model, DATA[0], spec, DATA, check="numeric")
    assert result.report.repairs
    assert torch.isfinite(result.model(DATA[0])).all()
    result.model(DATA[0]).sum().backward()  # nothing of an inference run is left behind


def test_who_remembers_a_tensor_is_found() -> None:
    assert remembering([bounded(3)]) == (bounded,)
    assert remembering([unbounded(3)["order"]]) == (unbounded,)
    assert remembering([torch.ones(3)]) == ()
