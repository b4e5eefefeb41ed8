"""Each point is checked against a prune of that group alone; the bookkeeping around the points by counting."""

import json
import math
import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core import damage
from pruning_core.sensitivity import _Points, in_order


class Net(nn.Module):
    """Three prunable groups: a (12), b coupled with c by an addition (16), and the hidden linear layer (20)."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(1, 12, 3, padding=1)
        self.b = nn.Conv2d(12, 16, 3, padding=1)
        self.norm = nn.BatchNorm2d(16)
        self.c = nn.Conv2d(16, 16, 1)
        self.hidden = nn.Linear(16, 20)
        self.head = nn.Linear(20, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.b(F.relu(self.a(x)))))
        x = x + self.c(x)
        return self.head(F.relu(self.hidden(x.mean(dim=(2, 3)))))


@pytest.fixture(scope="module")
def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def x() -> Tensor:
    return torch.randn(64, 1, 6, 6, generator=torch.Generator().manual_seed(1))


def labelled(net: nn.Module, x: Tensor) -> pc.Calibration:
    """Labels that the uncut net gets right in three of four cases."""
    y = net(x).argmax(dim=1).detach()
    y[::4] = (y[::4] + 1) % 4
    return pc.Calibration([(x[:40], y[:40]), (x[40:], y[40:])], labelled=True)


def test_every_point_is_that_group_alone_pruned_and_compensated(net: nn.Module, x: Tensor) -> None:
    data = labelled(net, x)
    before = {name: t.clone() for name, t in net.state_dict().items()}
    result = pc.sensitivity(net, x[:2], data, ratios=(0.25, 0.6))
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    assert (result.figure, result.baseline, result.points) == ("accuracy", 0.75, 6)
    assert result.is_complete
    assert result.groups == ("a", "b", "hidden")
    assert [row.width for row in result.rows[:3]] == [12, 16, 20]
    assert result.rows[1].layers == ("b", "c")
    assert "head" in result.locked
    y = torch.cat([target for _, target in data.data])  # type: ignore[union-attr]
    for row in result.rows:
        spec = pc.PruningSpec(allocator="per_layer", ratios={row.group: row.ratio})
        alone = pc.prune(net, x[:2], spec, data)
        assert [len(cut.keep) for cut in alone.plan.cuts] == [row.kept]
        answers = alone.model(x)
        right = float((answers.argmax(dim=1) == y).double().mean())
        assert row.figure == pytest.approx(right)
        assert row.drop == pytest.approx(0.75 - right)
        assert row.macs_factor == pytest.approx(alone.report.macs_before / alone.report.macs_after)


def test_the_model_is_analysed_and_the_data_looked_at_once(
    net: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: dict[str, list[int]] = {"study": [], "input_moments": [], "by_elimination": []}
    for module, name in (
        (sys.modules["pruning_core.sensitivity"], "study"),
        (damage, "input_moments"),
        (damage, "by_elimination"),
    ):
        real = getattr(module, name)

        def counted(*args: Any, name: str = name, real: Any = real, **kwargs: Any) -> Any:
            calls[name].append(len(args[0]) if name == "by_elimination" else 1)
            return real(*args, **kwargs)

        monkeypatch.setattr(module, name, counted)
    pc.sensitivity(net, x[:2], x, ratios=(0.25, 0.5, 0.75))
    assert calls["study"] == calls["input_moments"] == [1]
    assert sum(calls["by_elimination"]) == 3  # groups


def test_the_middle_comes_first_and_a_stopped_table_is_taken_up_where_it_ended(net: nn.Module, x: Tensor) -> None:
    ratios, spec = (0.25, 0.5, 0.7), pc.PruningSpec(min_channels=1)
    whole = pc.sensitivity(net, x[:2], x, ratios, spec)
    assert [row.ratio for row in whole.rows] == [0.5] * 3 + [0.7] * 3 + [0.25] * 3
    left = iter([False] * 4 + [True])
    part = pc.sensitivity(net, x[:2], x, ratios, spec, stop=lambda: next(left))
    assert part.rows == whole.rows[:4]
    assert not part.is_complete
    stored = pc.Sensitivity.from_dict(json.loads(json.dumps(part.to_dict())))
    assert stored == part
    new: list[pc.SensitivityRow] = []
    began: list[pc.Sensitivity] = []
    again = pc.sensitivity(
        net, x[:2], x, ratios, spec, known=stored.rows, on_start=began.append, on_row=lambda row, _: new.append(row)
    )
    assert began == [part]
    assert again == whole
    assert new == list(whole.rows[4:])
    wider = pc.sensitivity(net, x[:2], x, (0.1,), spec, known=whole.rows)  # rows of other ratios stay
    assert wider.rows[:9] == whole.rows
    assert [row.ratio for row in wider.rows[9:]] == [0.1] * 3


def test_two_ratios_that_make_one_cut_are_measured_once(net: nn.Module, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    measured: list[str] = []
    real = _Points._measure
    monkeypatch.setattr(
        _Points, "_measure", lambda self, group, *cut: measured.append(group.name) or real(self, group, *cut)
    )
    rows = pc.sensitivity(net, x[:2], x, (0.5, 0.9), pc.PruningSpec(min_channels=8, include=("a",))).rows
    assert [row.kept for row in rows] == [8, 8]
    assert rows[0].figure == rows[1].figure
    assert measured == ["a"]


def test_figures_by_hand() -> None:
    """A linear net of two hidden units, of which one cut without compensation takes away the second."""
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
        model[1].weight.copy_(torch.eye(2))
    x = torch.tensor([[1.0, 2.0], [-1.0, 2.0]])  # answers (3, 2) and (-3, 2); after the cut (3, 0) and (-3, 0)
    spec = pc.PruningSpec(criterion="l2_norm", compensation="none", min_channels=1, round_to=1)
    data = pc.Calibration([(x, torch.tensor([0, 1]))], labelled=True)

    def drop(data: object, figure: str, **more: Any) -> float:
        result = pc.sensitivity(model, x, data, (0.5,), spec, figure=figure, **more)
        assert result.rows[0].kept == 1
        assert result.rows[0].drop is not None
        return result.rows[0].drop

    assert drop(x, "change") == pytest.approx(8 / 22)  # squares 9+4+9+4 about the mean 1: 26 - 4
    assert drop(data, "accuracy") == 0
    loss = [math.log(1 + math.exp(-d)) for d in (1.0, 5.0, 3.0, 3.0)]
    assert drop(data, "auto", loss=lambda z, y: F.cross_entropy(z, y)) == pytest.approx(
        sum(loss[2:]) / 2 - sum(loss[:2]) / 2
    )
    assert drop(data, "loss") == pytest.approx(sum(loss[2:]) / 2 - sum(loss[:2]) / 2)
    p = [torch.tensor(v).softmax(0) for v in ([3.0, 2.0], [-3.0, 2.0])]
    q = [torch.tensor(v).softmax(0) for v in ([3.0, 0.0], [-3.0, 0.0])]
    by_hand = sum(float((a * (a / b).log()).sum()) for a, b in zip(p, q, strict=True)) / 2
    assert drop(x, "kl") == pytest.approx(by_hand, abs=1e-6)


def test_auto_takes_what_the_data_allow(net: nn.Module, x: Tensor) -> None:
    spec = pc.PruningSpec(include=("a",), compensation="none")
    targets = pc.Calibration([(x, torch.zeros(64, 4))], labelled=True, loss=lambda z, y: F.mse_loss(z, y))
    for data, figure in ((x, "change"), (labelled(net, x), "accuracy"), (targets, "loss")):
        assert pc.sensitivity(net, x[:2], data, (0.5,), spec).figure == figure
    both = pc.sensitivity(net, x[:2], x, (0.5,), spec, evaluation=labelled(net, x))
    assert (both.figure, both.baseline) == ("accuracy", 0.75)


def test_a_criterion_that_reads_labels_finds_them(net: nn.Module, x: Tensor) -> None:
    spec = pc.PruningSpec(criterion="taylor", compensation="none")
    assert pc.sensitivity(net, x[:2], labelled(net, x), (0.5,), spec).is_complete
    with pytest.raises(pc.SpecError, match="label"):
        pc.sensitivity(net, x[:2], x, (0.5,), spec)


class SameWidths(nn.Module):
    """Its code refuses two layers of different widths."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(4, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.a.weight.shape[0] != self.b.weight.shape[0]:
            raise RuntimeError("widths differ")
        return self.head(F.relu(self.b(F.relu(self.a(x)))))


def test_a_group_that_cannot_be_cut_alone_has_a_reason_instead_of_a_figure() -> None:
    torch.manual_seed(0)
    x = torch.randn(32, 4)
    result = pc.sensitivity(SameWidths().eval(), x[:2], x, (0.5,))
    for row in result.rows:
        assert (row.figure, row.drop) == (None, None)
        assert row.reason.startswith("cannot be cut alone: ")
    assert {row.group for row in result.rows} | set(result.locked) >= {"a", "b"}


def test_layers_before_the_cut_are_left_alone(net: nn.Module, x: Tensor) -> None:
    spec = pc.PruningSpec(allocator="per_layer", ratios={"hidden": 0.5})
    result = pc.prune(net, x[:2], spec, x)
    assert [repair.layer for repair in result.report.repairs] == ["hidden.weight", "head.weight"]
    assert torch.equal(result.model.c.weight, net.c.weight)  # type: ignore[union-attr, arg-type]


@pytest.mark.parametrize(
    ("given", "order"),
    [
        ((0.25, 0.5, 0.75), (0.5, 0.75, 0.25)),
        ((0.5,), (0.5,)),
        ((0.2, 0.4, 0.6, 0.8), (0.6, 0.8, 0.4, 0.2)),
        ((0.3, 0.3, 0.1), (0.3, 0.1)),
    ],
)
def test_the_order_of_ratios(given: tuple[float, ...], order: tuple[float, ...]) -> None:
    assert in_order(given) == order


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ratios": ()}, "no ratios"),
        ({"ratios": (0.5, 1.0)}, "1.0 is no ratio"),
        ({"ratios": ("half",)}, "'half' is no ratio"),
        ({"calibration": None}, "needs calibration data"),
        ({"spec": pc.PruningSpec(budget={"macs": "2x"})}, "budget"),
        ({"spec": pc.PruningSpec(ratios={"a": 0.5})}, "ratios"),
        ({"spec": pc.PruningSpec(exclude=("nothing",))}, "matches no layer"),
        ({"figure": "acuracy"}, "did you mean 'accuracy'"),
        ({"figure": "loss"}, "needs labels"),
        ({"calibration": pc.Calibration(torch.zeros(4, 1, 6, 6), samples=9)}, "9 samples were asked for"),
    ],
)
def test_what_makes_no_sense_is_refused(net: nn.Module, x: Tensor, changes: dict[str, Any], words: str) -> None:
    request = {"calibration": x, "ratios": (0.5,), **changes}
    with pytest.raises(pc.SpecError, match=words):
        pc.sensitivity(net, x[:2], **request)


def test_a_stored_table_that_is_none_is_refused() -> None:
    for data in ({}, {"rows": [{"group": "a"}]}, {"rows": [], "figure": "x", "baseline": 1.0, "points": 0}):
        with pytest.raises(pc.SpecError):
            pc.Sensitivity.from_dict(data)
