"""Lockstep: what it hands out is what hooks see, whatever fits; memory is kept to; nothing global is left changed."""

import threading
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.calibration import Batch, Calibration
from pruning_core.errors import ModelError
from pruning_core.inputs import ExampleInputs
from pruning_core.observe import lockstep as lockstep_module
from pruning_core.observe.calls import layer_calls
from pruning_core.observe.lockstep import Lockstep, Stop
from pruning_core.observe.pieces import pieces
from pruning_core.observe.run import Run
from pruning_core.trace import Trace
from tests.models import seeded
from tests.pruning_core.observe.nets import subject_of


class Narrowing(nn.Module):
    """Maps that shrink, widen again, and shrink."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Conv2d(3, 8, 3, stride=2), nn.Conv2d(8, 8, 3, stride=2), nn.Conv2d(8, 8, 1)])
        self.wide, self.head = nn.ConvTranspose2d(8, 8, 8, stride=8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = F.relu(layer(x), inplace=True)
        return self.head(self.wide(x).mean((2, 3)))


MODEL = seeded(Narrowing)().eval()
X = torch.randn(24, 3, 21, 21, generator=torch.Generator().manual_seed(0))
Room = Callable[[int, int], int]


def lockstep(room: Room, size: int = 2, student: nn.Module = MODEL) -> Lockstep:
    trace = subject_of(MODEL, X[:2]).trace
    stops = [Stop(call.op.index, call.op.index) for call in layer_calls(trace)]
    return Lockstep(MODEL, student, trace, stops, [Batch(b.inputs) for b in Calibration(list(X.split(size)))], room)


def inputs_and_answers(x: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Of each layer, as hooks see them."""
    seen: list[tuple[Tensor, Tensor]] = []

    def hook(_module: nn.Module, args: tuple[Tensor], out: Tensor) -> None:
        seen.append((args[0].clone(), out.clone()))

    layers = [*MODEL.layers, MODEL.wide, MODEL.head]
    handles = [layer.register_forward_hook(hook) for layer in layers]
    with torch.no_grad():
        MODEL(x)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("room", [lambda number, samples: 10**9, lambda number, samples: 60_000, lambda number, samples: 0])
def test_pairs_see_what_hooks_see(room: Room) -> None:
    with lockstep(room) as both:
        for number, stop in enumerate(both.stops):
            for pair in both.at(number):
                x, y = inputs_and_answers(pair.piece.inputs.args[0])[number]
                assert torch.equal(pair.student.args[0], x)
                assert torch.equal(pair.teacher.result(stop.answer), y)


class ReadsViews(nn.Module):
    """Weights that are reshaped before they are used, as standardised convolutions do, and maps that are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gain, self.head = nn.Conv2d(3, 16, 3), nn.Parameter(torch.rand(16)), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.conv.weight.view(16, -1)
        weight = ((weight - weight.mean(1, keepdim=True)) / weight.std(1, keepdim=True)).view_as(self.conv.weight)
        x = F.conv2d(x, weight, self.conv.bias) * self.gain.view(-1, 1, 1)
        return self.head(F.relu(x).flatten(2).transpose(1, 2).mean(1))


def test_views_of_weights() -> None:
    model = seeded(ReadsViews)()
    trace = subject_of(model, X[:2]).trace
    call = layer_calls(trace)[-1].op.index
    run = Run(model, ExampleInputs.of(X[:2]), trace, [call + 1], [call])
    run.advance_to(call + 1)
    assert torch.equal(run.result(call), model(X[:2]))
    run.end()


class CatchesAll(nn.Module):
    """Tries again, whatever was raised."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(8, 32), nn.Linear(32, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.body(x))
        try:
            y = self.head(x)
        except:  # noqa: E722
            y = self.head(x) * 1
        return y


@pytest.mark.parametrize("steps", [0, 1])
def test_a_run_ends_in_a_model_that_catches_all(steps: int) -> None:
    model, x = seeded(CatchesAll)(), torch.ones(2, 8)
    trace = subject_of(model, x).trace
    calls = [call.op.index for call in layer_calls(trace)]
    run = Run(model, ExampleInputs.of(x), trace, calls, [])
    run.advance_to(calls[steps])
    ending = threading.Thread(target=run.end, daemon=True)
    ending.start()
    ending.join(30)
    assert not ending.is_alive()
    assert not run._thread.is_alive()


def test_as_many_pieces_as_fit_and_one_in_any_case(monkeypatch: pytest.MonkeyPatch) -> None:
    assert _counts(lambda number, samples: 0) == [2] * 5
    assert _counts(lambda number, samples: 10**9) == [24] * 5
    assert _counts(lambda number, samples: 60_000) == [2, 2, 2, 2, 24]  # none is started for the stops before the wide map
    monkeypatch.setattr(lockstep_module, "AHEAD", 1)
    first, _, third, wide, last = _counts(lambda number, samples: 60_000)
    assert 2 < first < third
    assert (wide, last) == (2, 24)  # those that were dropped come back


def _counts(room: Room) -> list[int]:
    with lockstep(room) as both:
        return [sum(len(pair.piece) for pair in both.at(number)) for number in range(5)]


def test_what_is_alive_stays_within_the_room() -> None:
    with lockstep(lambda number, samples: 60_000) as both:
        for number in range(5):
            pairs = list(both.at(number))
            assert len(pairs) == 1 or sum(pair.alive() for pair in pairs) <= 60_000


def test_room_is_asked_for_the_samples_that_would_be_under_way() -> None:
    assert _counts(lambda number, samples: 10**9 if samples <= 6 else 0) == [6] * 5


def test_alive_is_what_a_run_holds() -> None:
    trace = subject_of(MODEL, X[:2]).trace
    calls = [call.op.index for call in layer_calls(trace)]
    run = Run(MODEL, ExampleInputs.of(X[:2]), trace, [calls[0] + 1, calls[1]], [calls[0]])
    assert run.alive() == 0
    run.advance_to(calls[1])
    map_bytes = 4 * 2 * 8 * 10 * 10
    assert run.alive() == 2 * map_bytes  # held before the ReLU wrote in place, and the input of the second layer
    run.forget(())
    assert run.alive() == map_bytes
    run.end()
    assert run.alive() == 0


def test_a_piece_that_starts_late_runs_with_the_weights_of_now() -> None:
    student = seeded(Narrowing)().eval()
    with lockstep(lambda number, samples: 10**9 if number > 1 or samples <= 2 else 0, student=student) as both:
        for number in range(3):
            for pair in both.at(number):
                if number == 2:
                    with torch.no_grad():
                        want = F.relu(student.layers[1](F.relu(student.layers[0](pair.piece.inputs.args[0]))))
                    torch.testing.assert_close(pair.student.args[0], want)
            student.layers[number].weight.data.mul_(2)
            if number < 2:
                assert both.samples == 2
        assert both.samples == 24


def test_nothing_global_is_left_changed() -> None:
    before = (torch.backends.mha.get_fastpath_enabled(), list(warnings.filters), threading.active_count())
    with lockstep(lambda number, samples: 10**9) as both:
        for number in range(5):
            list(both.at(number))
    with lockstep(lambda number, samples: 10**9) as both:
        next(both.at(0))  # left half way
    assert (torch.backends.mha.get_fastpath_enabled(), list(warnings.filters), threading.active_count()) == before


def test_kernels_run_in_the_thread_that_asks() -> None:
    where = set()

    class Spy(torch.utils._python_dispatch.TorchDispatchMode):  # type: ignore[no-untyped-call]
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            where.add(str(func.overloadpacket))
            return func(*args, **(kwargs or {}))

    trace = subject_of(MODEL, X[:2]).trace
    run = Run(MODEL, ExampleInputs.of(X[:2]), trace, [trace.ops[-1].index], [])
    with Spy():  # modes belong to a thread
        run.advance_to(trace.ops[-1].index)
    run.end()
    assert "aten.conv2d" in where


def test_a_model_that_fails_on_the_data_says_so() -> None:
    trace: Trace = subject_of(MODEL, X[:2]).trace
    data = list(pieces(Calibration([torch.randn(2, 4, 21, 21)] * 2), trace))
    with pytest.raises(ModelError, match="channels"), Lockstep(MODEL, MODEL, trace, [Stop(0, 0)], data, lambda n, s: 1):
        pass


def test_a_result_that_was_not_made_is_named() -> None:
    trace = subject_of(MODEL, X[:2]).trace
    run = Run(MODEL, ExampleInputs.of(X[:2]), trace, [3], [])
    run.advance_to(3)
    with pytest.raises(ModelError, match="other calls"):
        run.result(2)
    run.end()
