"""Models whose code remembers tensors: they go on as before, whoever has run them, and are calibrated like others."""

import functools
from collections.abc import Iterator
from types import SimpleNamespace

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


TABLES: dict[int, Tensor] = {}
CONSTANTS = {"twice": torch.full((4, 1), 2.0)}


class Remembering(nn.Module):
    """Its tokens are put in an order that is computed once, and used twice."""

    tables: dict[int, Tensor] = {}  # noqa: RUF012  as people write it

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)

    def order(self, n: int) -> Tensor:
        if self.kind in {"of a class", "of a file"}:
            tables = self.tables if self.kind == "of a class" else TABLES
            if n not in tables:
                tables[n] = torch.tensor([3, *range(n - 1)]) if n == 5 else torch.arange(n).flip(0).roll(1)
            return tables[n]
        return bounded(n) if self.kind == "bounded" else unbounded(n)["order"]

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x).relu()[self.order(len(x))]
        return self.c(self.b(y).relu()[self.order(len(x))])


@pytest.fixture(autouse=True)
def _forget() -> Iterator[None]:
    yield
    bounded.cache_clear()
    unbounded.cache_clear()
    TABLES.clear()
    Remembering.tables.clear()


KINDS = ("bounded", "unbounded")


@pytest.mark.parametrize("samples", [4, 5])
@pytest.mark.parametrize("kind", [*KINDS, "of a class", "of a file"])
def test_the_callers_model_finds_no_tensors_of_ours(kind: str, samples: int) -> None:
    model, x = seeded(lambda: Remembering(kind))(), torch.randn(samples, 8)
    with torch.no_grad():
        pc.prune(model, x, pc.PruningSpec(ratio=0.5, min_channels=1), check="numeric")
        assert model(x).device.type == "cpu"


@pytest.mark.parametrize("criterion", ["l2_norm", "activation"])
@pytest.mark.parametrize("kind", ["of a class", "of a file"])
def test_dictionaries_are_emptied_between_runs(kind: str, criterion: str) -> None:
    model = seeded(lambda: Remembering(kind))()
    spec = pc.PruningSpec(ratio=0.5, criterion=criterion, min_channels=1, compensation="least_squares")
    assert pc.prune(model, DATA[0], spec, DATA, check="numeric").report.repairs
    assert not Remembering.tables
    assert not TABLES


def test_what_was_there_before_stays() -> None:
    class Constant(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu() * CONSTANTS["twice"])

    model = seeded(Constant)()
    pc.prune(model, DATA[0], pc.PruningSpec(ratio=0.5, min_channels=1), DATA, check="numeric")
    assert float(CONSTANTS["twice"].sum()) == 8


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


def test_what_a_model_keeps_on_itself_is_its_own() -> None:
    """A twin runs: nothing of it comes to the caller's, and nothing has to be emptied."""

    class Keeping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)
            self.kept: dict[int, Tensor] = {}
            self.last: Tensor | None = None

        def forward(self, x: Tensor) -> Tensor:
            self.last = self.kept[len(x)] = torch.arange(len(x)).flip(0)
            return self.b(self.a(x).relu()[self.kept[len(x)]])

    model = seeded(Keeping)()
    assert not study(model, ExampleInputs.of(DATA[0])).trace.remembered_by
    assert not model.kept
    assert model.last is None


class Shared:
    table: Tensor | None = None


HOLDER = SimpleNamespace(table=None)


def test_attributes_of_classes_and_objects_are_not_taken_away() -> None:
    class Setting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            Shared.table = HOLDER.table = torch.arange(len(x)).flip(0)
            return self.b(self.a(x).relu()[Shared.table])

    pc.plan(seeded(Setting)(), DATA[0], pc.PruningSpec(ratio=0.5, min_channels=1))
    assert "table" in vars(Shared)
    assert "table" in vars(HOLDER)
