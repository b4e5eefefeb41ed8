"""Only shapes that a cut can give are timed, and what is timed round them is weighted to what was asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pruning_core import latency_table
from pruning_core.cost_model import CostModel
from pruning_core.coupling.analysis import Decisions, resolve
from pruning_core.coupling.groups import channel_groups
from pruning_core.even import counted
from pruning_core.inputs import ExampleInputs
from pruning_core.latency_grid import Axis, Shapes, corners
from pruning_core.latency_table import LatencyTable
from pruning_core.study import study
from pruning_core.trace import Op, Value

IMAGE, SEQUENCE = torch.randn(2, 3, 8, 8), torch.randn(3, 5, 8)


class Lstm(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.head = nn.LSTM(8, 160, num_layers=2, batch_first=True), nn.Linear(160, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.lstm(x)[0][:, -1])


class Dense(nn.Module):
    """A convolution that reads twelve layers at once."""

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Conv2d(3, 20 + k, 1) for k in range(12))
        self.last, self.head = nn.Conv2d(sum(20 + k for k in range(12)), 40, 1), nn.Conv2d(40, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.last(torch.cat([part(x) for part in self.parts], dim=1)))


def grouped(groups: int, kind: type[nn.Module] = nn.Conv2d) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 128, 1), kind(128, 128, 3, padding=1, groups=groups), nn.Conv2d(128, 4, 1))


NETS = {
    "dense": (lambda: grouped(1), IMAGE),
    "groups of 32": (lambda: grouped(4), IMAGE),
    "groups of 4": (lambda: grouped(32), IMAGE),
    "depthwise": (lambda: grouped(128), IMAGE),
    "transposed": (lambda: grouped(4, nn.ConvTranspose2d), IMAGE),
    "depthwise transposed": (lambda: grouped(128, nn.ConvTranspose2d), IMAGE),
    "lstm": (Lstm, SEQUENCE),
    "concatenated": (Dense, IMAGE),
}


@pytest.mark.parametrize("policy", ["sum", "none"])
@pytest.mark.parametrize("name", list(NETS))
def test_what_is_timed_can_be_run(name: str, policy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    build, x = NETS[name]
    subject = study(build().eval(), ExampleInputs.of(x))
    analysis = resolve(subject.trace, Decisions(group_policy=policy))
    groups = [group for group in channel_groups(analysis) if not group.reason]
    parts = counted(groups, frozenset(), analysis)
    timed: list[tuple[str, Shapes, float | None]] = []
    real = latency_table._time

    def noted(op: Op, values: list[Value], shapes: Shapes, device: str, threads: int) -> float | None:
        timed.append((op.name, shapes, real(op, values, shapes, device, threads)))
        return timed[-1][2]

    monkeypatch.setattr(latency_table, "_time", noted)
    table = LatencyTable(threads=1)
    costs = CostModel(analysis, parts, frozenset(), table)
    for share in (1.0, 0.9375, 0.8125, 0.6, 0.4, 0.1, 0.0):
        counts = np.array([max(round(p.channels * share / p.lot), 1) * p.lot for p in parts], dtype=np.int64)
        assert costs.total("latency_ms", counts) > 0
    assert all(ms is not None and ms > 0 for _, _, ms in timed)
    assert len(timed) < 90
    for op, shapes, _ in timed:
        if op == "aten.lstm":  # which torch would run, and read past the end of a weight
            hidden, gates = shapes[1][-1], [shape[0] for shape in shapes if len(shape) == 2]
            assert set(gates) == {4 * hidden}


def test_a_call_that_fails_is_not_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes its share of what the whole call takes, and is not kept."""
    subject = study(grouped(1).eval(), ExampleInputs.of(IMAGE))
    op = next(op for op in subject.trace.ops if op.name == "aten.conv2d")
    whole = tuple(value.shape for value in latency_table.timed_values(op))
    half = (whole[0], (64, *whole[1][1:]), (64,), (whole[3][0], 64, *whole[3][2:]))
    monkeypatch.setattr(latency_table, "_time", lambda _op, _values, shapes, *_: 8.0 if shapes == whole else None)
    table = LatencyTable()
    assert table.milliseconds(op, [(1.0, half)]) == 4.0
    assert list(table.known.values()) == [8.0]
    assert not LatencyTable({"a failure of old": 0.0}).known


class Lot:
    def __init__(self, channels: int, lot: int = 1) -> None:
        self.channels, self.lot = channels, lot


@settings(max_examples=200, deadline=None)
@given(
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    lots=st.tuples(st.sampled_from([1, 3, 4, 32]), st.sampled_from([1, 2, 8])),
    shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)),
    fixed=st.integers(0, 3),
)
def test_the_points_lie_round_what_was_asked_for(
    channels: tuple[int, int], lots: tuple[int, int], shares: tuple[float, float], fixed: int
) -> None:
    """A grouped convolution's input, of two groups of channels, and its weight: sizes are whole, and their mean is right."""
    groups = [Lot(n * lot, lot) for n, lot in zip(channels, lots, strict=True)]
    counts = np.array([max(round(n * s), 1) * lot for n, s, lot in zip(channels, shares, lots, strict=True)])
    both = lots[0] if lots[0] == lots[1] else 1
    x, weight, out = Axis(0, ((0, 1.0),)), Axis(0, ((0, 1 / lots[0]),)), Axis(fixed, ((0, 2.0), (1, 1.0)))
    found = list(corners([[x, weight], [out]], counts, groups))
    assert sum(weight for weight, _ in found) == pytest.approx(1)
    for _, ((wide, narrow), (total,)) in found:
        assert wide == narrow * lots[0] > 0
        assert wide <= groups[0].channels
        assert 0 < total <= fixed + 2 * groups[0].channels + groups[1].channels
        assert (total - fixed) % both == 0
    assert sum(weight * shapes[0][0] for weight, shapes in found) == pytest.approx(counts[0])
    assert sum(weight * shapes[1][0] for weight, shapes in found) == pytest.approx(fixed + 2 * counts[0] + counts[1])
