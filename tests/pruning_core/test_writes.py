"""Forwards that write in place: the caller's tensors stay as they are, and every run starts from the same values."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.inputs import ExampleInputs
from pruning_core.study import study
from tests.models import seeded


class Preprocesses(nn.Module):
    """Normalises its input, in place if asked to."""

    def __init__(self, in_place: bool = True, reads_values: bool = False) -> None:
        super().__init__()
        self.in_place, self.reads_values = in_place, reads_values
        self.conv1, self.conv2 = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = x.sub_(0.5).div_(0.25) if self.in_place else (x - 0.5) / 0.25
        if self.reads_values and x.mean().item() > 1000:
            return self.fc(x.new_zeros(len(x), 16))
        return self.fc(F.relu(self.conv2(F.relu(self.conv1(x)))).mean((2, 3)))


def images(n: int, seed: int = 0) -> Tensor:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("reads_values", [False, True])
@pytest.mark.parametrize("allocator", ["uniform", "slamp"])
@pytest.mark.parametrize("compensation", ["none", "sequential", "least_squares"])
def test_data_that_a_forward_writes(compensation: str, allocator: str, reads_values: bool) -> None:
    spec = pc.PruningSpec(
        compensation=compensation, allocator=allocator, criterion="reconstruction", min_channels=2, recalibrate_bn=True
    )
    example, data = images(2), images(32, seed=1)
    model = seeded(lambda: Preprocesses(reads_values=reads_values))()
    pruned = pc.prune(model, example, spec, data, check="numeric")
    assert torch.equal(example, images(2))
    assert torch.equal(data, images(32, seed=1))
    gently = seeded(lambda: Preprocesses(in_place=False, reads_values=reads_values))()
    expected = pc.prune(gently, example, spec, data)
    with torch.no_grad():
        torch.testing.assert_close(pruned.model(images(4)), expected.model(images(4)))


@pytest.mark.parametrize("criterion", ["nuclear_norm", "taylor"])
def test_data_that_a_criterion_reads(criterion: str) -> None:
    data, labels = images(8), torch.arange(8) % 5
    calibration = pc.Calibration([(data, labels)], labelled=True)
    pc.plan(seeded(Preprocesses)(), images(2), pc.PruningSpec(criterion=criterion, min_channels=2), calibration)
    assert torch.equal(data, images(8))


def test_running_statistics_of_a_forward_that_writes_its_data() -> None:
    layers = nn.ReLU(inplace=True), nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.Conv2d(16, 4, 3)
    data = images(8) - 0.5
    spec = pc.PruningSpec(recalibrate_bn=True, compensation="none", criterion="l2_norm", min_channels=2)
    pc.prune(nn.Sequential(*layers).eval(), images(2), spec, [data])
    assert torch.equal(data, images(8) - 0.5)


@pytest.mark.parametrize("figure", ["change", "kl"])
def test_data_that_is_evaluated(figure: str) -> None:
    data = images(8)
    spec, model = pc.PruningSpec(min_channels=2), seeded(Preprocesses)()
    found = pc.sensitivity(model, images(2), images(8), (0.5,), spec, evaluation=[data], figure=figure)
    assert torch.equal(data, images(8))
    gently = seeded(lambda: Preprocesses(in_place=False))()
    expected = pc.sensitivity(gently, images(2), images(8), (0.5,), spec, figure=figure)
    for row, other in zip(found.rows, expected.rows, strict=True):
        assert row.figure == pytest.approx(other.figure, rel=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_numeric_check_of_a_forward_that_writes_its_input(dtype: torch.dtype) -> None:
    example = images(2).to(dtype)
    result = pc.prune(seeded(Preprocesses)().to(dtype), example, pc.PruningSpec(min_channels=2), check="numeric")
    assert result.report.mask_error is not None
    assert torch.equal(example, images(2).to(dtype))


class Renormalises(nn.Module):
    """An embedding that shortens its vectors as they are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.hidden, self.fc = nn.Embedding(50, 16, max_norm=1.0), nn.Linear(16, 32), nn.Linear(32, 5)

    def forward(self, ids: Tensor) -> Tensor:
        return self.fc(F.relu(self.hidden(self.embed(ids))).mean(1))


class Clamps(nn.Module):
    """Holds a parameter, and a layer's weight, inside bounds; may need values of its input."""

    def __init__(self, reads_values: bool = False) -> None:
        super().__init__()
        self.reads_values = reads_values
        self.hidden, self.more, self.fc = nn.Linear(8, 32), nn.Linear(32, 16), nn.Linear(16, 5)
        self.gain = nn.Parameter(3 * torch.randn(32))

    def forward(self, x: Tensor) -> Tensor:
        if self.reads_values and x.mean().item() > 1000:
            return self.fc(x.new_zeros(len(x), 16))
        self.gain.data.clamp_(-1, 1)
        with torch.no_grad():
            self.fc.weight.clamp_(-0.1, 0.1)
        return self.fc(F.relu(self.more(F.relu(self.hidden(x)) * self.gain)))


class Counts(nn.Module):
    """Keeps a number of calls and a running mean of what it saw, in buffers and in a list."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.norm, self.fc = nn.Linear(8, 32), nn.BatchNorm1d(32), nn.Linear(32, 5)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(32))
        self.seen = [torch.zeros(())]

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norm(self.hidden(x)))
        self.calls += 1
        self.seen[0] += 1
        self.mean.mul_(0.9).add_(y.mean(0), alpha=0.1)
        return self.fc(y - self.mean)


def rows(n: int) -> Tensor:
    return torch.randn(n, 8, generator=torch.Generator().manual_seed(0))


def ids(n: int) -> Tensor:
    return torch.randint(0, 50, (n, 7), generator=torch.Generator().manual_seed(0))


WRITERS = {
    "renormalises": (Renormalises, ids),
    "clamps": (Clamps, rows),
    "clamps_and_reads": (lambda: Clamps(reads_values=True), rows),
    "counts": (Counts, rows),
}


@pytest.mark.parametrize("criterion", ["reconstruction", "nuclear_norm", "taylor"])
@pytest.mark.parametrize("compensation", ["sequential", "least_squares"])
@pytest.mark.parametrize("name", sorted(WRITERS))
def test_tensors_that_a_forward_writes(name: str, compensation: str, criterion: str) -> None:
    make, data = WRITERS[name]
    model = seeded(make)()
    before = {key: t.clone() for key, t in model.state_dict().items()}
    spec = pc.PruningSpec(criterion=criterion, compensation=compensation, min_channels=2, recalibrate_bn=True)
    labels = torch.arange(64) % 5
    pruned = pc.prune(model, data(2), spec, pc.Calibration([(data(64), labels)] * 2, labelled=True)).model
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    assert isinstance(pruned, nn.Module)
    assert pruned.hidden.weight.shape[0] == 16  # type: ignore[union-attr, index]
    if name == "counts":
        assert not pruned.calls.any()  # type: ignore[operator, union-attr]
        assert torch.isin(pruned.mean, model.mean).all()  # type: ignore[arg-type, operator]
        assert not pruned.seen[0].any()  # type: ignore[union-attr, index]


def test_a_figure_of_a_forward_that_writes() -> None:
    model = seeded(Counts)()
    found = pc.sensitivity(model, rows(2), rows(64), (0.5,), pc.PruningSpec(min_channels=2))
    again = pc.sensitivity(model, rows(2), rows(64), (0.5,), pc.PruningSpec(min_channels=2))
    assert found.rows == again.rows
    assert found.baseline == 0.0
    assert not model.calls.any()  # type: ignore[operator]


@pytest.mark.parametrize("reads_values", [False, True])
def test_only_what_is_written_is_copied(reads_values: bool) -> None:
    model = seeded(lambda: Clamps(reads_values))()
    trace = study(model, ExampleInputs.of(rows(2))).trace
    assert trace.real is reads_values
    assert trace.writes.tensors == {"gain", "fc.weight"}
    shared = {t.data_ptr() for t in model.parameters()}
    own = {name for name, t in trace.writes.twin(model).named_parameters() if t.data_ptr() not in shared}
    assert own == {"gain", "fc.weight"}


@torch.library.custom_op("secateur_test::scale_into", mutates_args=("out",))
def scale_into(out: Tensor, x: Tensor, scale: Tensor) -> None:
    out.copy_(x * scale[: x.shape[1]].view(1, -1, 1, 1))


scale_into.register_fake(lambda out, x, scale: None)


class GivesNothing(nn.Module):
    """Calls an operator that writes its result into an argument, and lists of tensors in place."""

    def __init__(self, foreach: bool) -> None:
        super().__init__()
        self.foreach = foreach
        self.conv, self.after, self.last = nn.Conv2d(3, 16, 3), nn.Conv2d(16, 32, 1), nn.Conv2d(32, 4, 1)
        self.scale = nn.Parameter(torch.randn(16))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        out = torch.empty_like(y)
        if self.foreach:
            out = y * 1
            torch._foreach_mul_([out], [self.scale.view(1, -1, 1, 1)])
        else:
            scale_into(out, y, self.scale)
        return self.last(F.relu(self.after(out))).mean((2, 3))


@pytest.mark.parametrize("compensation", ["none", "sequential"])
@pytest.mark.parametrize("foreach", [False, True])
def test_an_operator_that_gives_nothing_locks_what_it_touches(foreach: bool, compensation: str) -> None:
    model = seeded(lambda: GivesNothing(foreach))()
    spec = pc.PruningSpec(compensation=compensation, min_channels=2, criterion="l2_norm")
    result = pc.prune(model, images(2), spec, images(16), check="numeric")
    name = "aten._foreach_mul_" if foreach else "secateur_test.scale_into"
    assert {lock.group: lock.reason for lock in result.plan.locked}["conv"] == f"locked: no rule for {name}"
    assert [cut.layers for cut in result.plan.cuts] == [("after",)]
