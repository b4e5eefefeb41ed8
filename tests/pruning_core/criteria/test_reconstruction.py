"""What is chosen to go is what the whole kernel of a consumer cannot mend."""

import copy
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pruning_core as pc
from pruning_core.calibration import Calibration
from pruning_core.coupling.analysis import Decisions, resolve
from pruning_core.coupling.groups import channel_groups
from pruning_core.criteria import reconstruction
from pruning_core.damage import Damages
from pruning_core.inputs import ExampleInputs
from pruning_core.observe import moments
from pruning_core.observe.calls import layer_calls
from pruning_core.observe.moments import input_moments
from pruning_core.study import study


def shifted_net() -> nn.Sequential:
    """Channel 1 is channel 0, one pixel later; channels 2 and 3 are inputs of their own. All are read much alike."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.Conv2d(4, 3, 3, padding=1, bias=False)).eval()
    with torch.no_grad():
        net[0].weight[:] = 0
        net[0].weight[0, 0, 1, 1] = net[0].weight[1, 0, 1, 0] = net[0].weight[2, 1, 1, 1] = net[0].weight[3, 2, 1, 1] = 1
        net[1].weight[:, 1] = 0
        net[1].weight[:, 1, 1, 1] = torch.tensor([0.5, -0.5, 0.5])  # at the borders too, 0 can stand in for it
    return net


def damages(net: nn.Module, x: torch.Tensor, *, compared: bool) -> torch.Tensor:
    subject = study(net, ExampleInputs.of(x[:2]))
    groups = [g for g in channel_groups(resolve(subject.trace, Decisions())) if not g.reason]
    (found,) = Damages(subject, Calibration(x)).of(groups, compared=compared).values()
    return torch.from_numpy(found)


@pytest.mark.parametrize("compared", [False, True])
def test_a_shifted_copy_goes_for_nothing(compared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    damage = damages(shifted_net(), x, compared=compared)
    assert int(damage.argmin()) in {0, 1}
    assert float(damage.min()) < 0.02 * float(damage.median())  # all that is left is the ridge's
    monkeypatch.setattr(moments, "MAX_UNFOLDED", 0)  # position by position, it is nobody's copy
    damage = damages(shifted_net(), x, compared=compared)
    assert float(damage.min()) > 0.2 * float(damage.median())


@pytest.mark.parametrize("compared", [False, True])
def test_damages_do_not_depend_on_the_batches(compared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where only some positions are looked at, and where the output's spread is not that of the first batch."""
    monkeypatch.setattr(moments, "ROWS", 640)
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 1)).eval()
    x = torch.randn(64, 3, 12, 12) * torch.linspace(0.2, 3, 64)[:, None, None, None]
    subject = study(net, ExampleInputs.of(x[:2]))
    groups = [g for g in channel_groups(resolve(subject.trace, Decisions())) if not g.reason]
    whole = Damages(subject, Calibration(x)).of(groups, compared=compared)
    cut = Damages(subject, Calibration([*x[:60].split(5), x[60:]])).of(groups, compared=compared)
    for name, damage in whole.items():
        torch.testing.assert_close(torch.from_numpy(cut[name]), torch.from_numpy(damage), rtol=1e-4, atol=0)


@pytest.mark.parametrize("compared", [False, True])
def test_nearly_alike_channels_are_told_apart_the_same_way_whatever_the_batches(compared: bool) -> None:
    """Inverses of a matrix with a large mean magnify what single precision rounds: that must not reach the scores."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.Sigmoid(), nn.Linear(16, 12), nn.Sigmoid(), nn.Linear(12, 4)).eval()
    x = torch.randn(200, 6)
    subject = study(net, ExampleInputs.of(x[:2]))
    groups = [g for g in channel_groups(resolve(subject.trace, Decisions())) if not g.reason]
    whole = Damages(subject, Calibration([x])).of(groups, compared=compared)
    cut = Damages(subject, Calibration(list(x.split(7)))).of(groups, compared=compared)
    for name, damage in whole.items():
        torch.testing.assert_close(torch.from_numpy(cut[name]), torch.from_numpy(damage), rtol=1e-5, atol=0)


def test_moments_hold_a_few_batches_whatever_their_number() -> None:
    """Batches die as they were looked at: memory does not grow with the number of samples."""
    net = two_layers()
    subject = study(net, ExampleInputs.of(torch.randn(2, 6)))
    alive: weakref.WeakSet[torch.Tensor] = weakref.WeakSet()
    most = 0

    class Stream:
        def __iter__(self) -> Iterator[torch.Tensor]:
            nonlocal most
            for _ in range(40):
                x = torch.randn(8, 6)
                alive.add(x)
                most = max(most, len(alive))
                yield x

    input_moments(net, subject.trace, Calibration(Stream()), 320)
    assert most <= 4


def test_a_weight_by_input_is_the_weight_again() -> None:
    """To rows of inputs and back is the weight again, for layers of every form."""
    torch.manual_seed(0)
    for layer in (
        nn.Conv2d(6, 5, 3),
        nn.Conv2d(6, 4, (3, 1), groups=2),
        nn.ConvTranspose2d(6, 5, 2, stride=2),
        nn.ConvTranspose2d(6, 4, (3, 1), groups=2),
        nn.Conv1d(6, 5, 1),
        nn.Linear(6, 5),
    ):
        spatial = () if isinstance(layer, nn.Linear) else (5,) * (layer.weight.ndim - 2)
        net = nn.Sequential(nn.Linear(6, 6) if not spatial else type(layer)(6, 6, 1), layer).eval()
        x = torch.randn(12, 6, *spatial)
        trace = study(net, ExampleInputs.of(x[:2])).trace
        grams = input_moments(net, trace, Calibration(x), len(x), unfolded=True)
        for call in layer_calls(trace):
            taps = (grams[call.op.index].xx.shape[1] - 1) // call.inputs
            weight = net.get_parameter(call.weight).detach()
            by_input = reconstruction._by_input(call, weight, taps).float()
            torch.testing.assert_close(reconstruction._as_weight(call, by_input, weight.shape, taps), weight)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(4, 3, 1), nn.ConvTranspose2d(4, 3, 2, 2), nn.ConvTranspose2d(4, 6, 3, 2, groups=2)]
)
def test_the_change_that_is_judged_is_what_the_repair_makes(layer: nn.Module) -> None:
    """Half of the channels gone: the weight and the bias afterwards are those before and the change."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU(), copy.deepcopy(layer)).eval()
    x = torch.randn(32, 3, 6, 6)
    subject = study(net, ExampleInputs.of(x[:2]))
    group = next(g for g in channel_groups(resolve(subject.trace, Decisions())) if g.name == "0")
    grams = input_moments(net, subject.trace, Calibration(x), len(x))
    damage = torch.arange(group.channels).double()
    named = dict(net.named_parameters())
    (change,) = reconstruction._changed(group, damage, layer_calls(subject.trace), grams, named).changes
    gone = range(group.channels // 2)
    mended = pc.prune(net, x[:2], pc.PruningSpec(index={"0": list(gone)}, compensation="least_squares"), x).model
    half = reconstruction.FRACTIONS.index(0.5)
    after = named["2.weight"].detach() + change.weight[half].float().reshape(named["2.weight"].shape)
    axis = 1 if isinstance(layer, nn.Conv2d) else 0
    stays = [k for k in range(4) if k % group.channels not in gone]
    torch.testing.assert_close(after.index_select(axis, torch.tensor(stays)), mended[2].weight, rtol=0.02, atol=0.02)
    assert change.bias is not None
    torch.testing.assert_close(named["2.bias"] + change.bias[half], mended[2].bias, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("groups", [1, 2])
def test_unfolded_moments_are_those_of_the_windows(groups: int) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=groups)).eval()
    x = torch.randn(5, 4, 7, 6)
    trace = study(net, ExampleInputs.of(x)).trace
    (gram,) = input_moments(net, trace, Calibration(x), len(x), unfolded=True).values()
    windows = F.unfold(x, (3, 2), padding=1, stride=2).reshape(5, groups, -1, 4 * 4).permute(1, 0, 3, 2).flatten(1, 2)
    with_one = torch.cat([windows, torch.ones(groups, windows.shape[1], 1)], dim=2).double()
    torch.testing.assert_close(gram.xx, with_one.transpose(1, 2) @ with_one, rtol=1e-5, atol=1e-4)


def test_depthwise_and_wide_kernels_are_seen_channel_by_channel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moments, "MAX_UNFOLDED", 4 * 9)
    net = nn.Sequential(nn.Conv2d(4, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 3), nn.Conv2d(2, 2, 1)).eval()
    x = torch.randn(2, 4, 9, 9)
    trace = study(net, ExampleInputs.of(x)).trace
    grams = input_moments(net, trace, Calibration(x), len(x), unfolded=True)
    assert [grams[call.op.index].xx.shape[1] - 1 for call in layer_calls(trace)] == [36, 1, 8, 2]


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)
    ).eval()


@pytest.mark.parametrize(("samples", "looked_at"), [(4, 1), (60, 20), (900, reconstruction.SAMPLES)])
def test_a_repair_is_measured_where_it_was_not_learned(
    samples: int, looked_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, x = two_layers(), torch.randn(samples, 6)
    seen: list[torch.Tensor] = []
    gradient = reconstruction._gradient

    def noting(model: nn.Module, named: Any, one: ExampleInputs, *rest: Any) -> Any:
        seen.append(one.args[0])
        return gradient(model, named, one, *rest)

    monkeypatch.setattr(reconstruction, "_gradient", noting)
    subject = study(net, ExampleInputs.of(x[:2]))
    inside = Damages(subject, Calibration(x))
    inside.of([g for g in channel_groups(resolve(subject.trace, Decisions())) if not g.reason], compared=True)
    held = torch.cat(seen)
    assert len(held) == looked_at
    learned = inside.grams[min(inside.grams)]
    assert learned.rows == samples - looked_at
    both = learned.xx[0, :6, :6] + held.T.double() @ held.double()
    torch.testing.assert_close(both, x.T.double() @ x.double(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("samples", [1, 2])
def test_very_few_samples_serve_for_both(samples: int) -> None:
    subject = study(two_layers(), ExampleInputs.of(torch.randn(2, 6)))
    groups = [g for g in channel_groups(resolve(subject.trace, Decisions())) if not g.reason]
    found = Damages(subject, Calibration(torch.randn(samples, 6))).of(groups, compared=True)
    assert all((damage >= 0).all() and torch.from_numpy(damage).isfinite().all() for damage in found.values())
