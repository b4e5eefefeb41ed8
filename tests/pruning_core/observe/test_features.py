"""Feature maps: which map it is, each statistic by hand, and that they stream."""

import gc
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.calibration import Calibration
from pruning_core.criteria import Features
from pruning_core.errors import ModelError
from pruning_core.observe import features as streamed
from pruning_core.observe.features import observe_features
from tests.models import seeded
from tests.pruning_core.observe.nets import NETS, data, subject_of


def observed(model: nn.Module, x: Tensor, size: int = 2, example: Tensor | None = None) -> dict[str, Features]:
    subject = subject_of(model.eval(), x if example is None else example)
    found, samples = observe_features(subject, Calibration(list(x.split(size))), nuclear=True)
    assert samples == len(x)
    return {name: features for (name, _), features in found.items()}


def close(found: Tensor | None, want: object) -> None:
    assert found is not None
    torch.testing.assert_close(found.float(), torch.as_tensor(want, dtype=torch.float32))


def two_channels(layer: nn.Module, *rest: nn.Module) -> nn.Sequential:
    """The first layer's channels are its input and minus twice its input."""
    model = nn.Sequential(layer, *rest)
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.copy_(torch.tensor([1.0, -2]).reshape([2] + [1] * (parameter.ndim - 1)) if parameter.ndim > 1 else 0)
    return model


def test_images_by_hand() -> None:
    """Maps diag(3, 4) and zero, behind the ReLU: singular values 3 + 4 and 0, their mean over two samples 3.5."""
    model = two_channels(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Conv2d(2, 1, 1))
    x = torch.tensor([[[[3.0, 0], [0, 4]]], [[[0.0, 0], [0, 0]]]])
    found = observed(model, x, 1)["0.weight"]
    close(found.nuclear_C, [3.5, 0])
    close(found.magnitude_C, [7 / 8, 0])
    close(found.zeros_C, [6 / 8, 1])


def test_one_axis_by_hand() -> None:
    """Slice [samples, positions] = diag(3, 4): singular values 3 + 4; twice that for the other channel."""
    model = two_channels(nn.Conv1d(1, 2, 1), nn.Conv1d(2, 1, 1))
    close(observed(model, torch.tensor([[[3.0, 0]], [[0.0, 4]]]), 1)["0.weight"].nuclear_C, [7, 14])


def test_plain_features_by_hand() -> None:
    """Slice [samples, 1] = (3, 4): one singular value, 5."""
    model = two_channels(nn.Linear(1, 2), nn.Linear(2, 1))
    close(observed(model, torch.tensor([[3.0], [4.0]]), 1)["0.weight"].nuclear_C, [5, 10])


def test_volumes_are_read_as_first_axis_by_rest() -> None:
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(3, 1, 2, 3, 2, generator=rng)
    model = two_channels(nn.Conv3d(1, 2, 1), nn.Conv3d(2, 1, 1))
    want = torch.linalg.svdvals(x[:, 0].reshape(3, 2, 6)).sum(1).mean()
    close(observed(model, x)["0.weight"].nuclear_C, torch.stack([want, 2 * want]))


def test_too_many_positions_are_taken_in_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for windows of one position, every position is a row: the slice is (3, 0, 0, 4)."""
    monkeypatch.setattr(streamed, "MAX_MOMENTS", 6)
    model = two_channels(nn.Conv1d(1, 2, 1), nn.Conv1d(2, 1, 1))
    close(observed(model, torch.tensor([[[3.0, 0]], [[0.0, 4]]]), 1)["0.weight"].nuclear_C, [5, 10])


def test_the_last_window_is_filled_up_with_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two positions a row: (3, 0) (0, 0) and (0, 4) (12, 0), whose moments are diag(153, 16)."""
    monkeypatch.setattr(streamed, "MAX_MOMENTS", 16)
    model = two_channels(nn.Conv1d(1, 2, 1), nn.Conv1d(2, 1, 1))
    found = observed(model, torch.tensor([[[3.0, 0, 0]], [[0.0, 4, 12]]]), 1)["0.weight"].nuclear_C
    close(found, [153**0.5 + 4, 2 * 153**0.5 + 8])


def test_the_map_is_behind_batch_norm_and_activation_in_place() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)
            self.bn = nn.BatchNorm2d(4)
            self.branch = nn.Conv2d(4, 4, 1)
            self.fc = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.bn(self.conv(x)), inplace=True)
            y = self.branch(x)
            return self.fc((x + y * y.sigmoid()).mean((2, 3)))

    model = seeded(Net)()
    x = torch.randn(6, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    found = observed(model, x)
    with torch.no_grad():
        first = F.relu(model.bn(model.conv(x)))
        second = model.branch(first)  # read twice: that is where its map ends
    close(found["conv.weight"].magnitude_C, first.abs().mean((0, 2, 3)))
    close(found["conv.weight"].zeros_C, (first == 0).float().mean((0, 2, 3)))
    close(found["branch.weight"].magnitude_C, second.abs().mean((0, 2, 3)))
    close(found["branch.weight"].nuclear_C, torch.linalg.svdvals(second).sum(2).mean(0))


def test_a_layer_that_is_called_several_times_has_one_statistic() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(3, 3, 1)
            self.fc = nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.body(self.body(x).relu()).relu().mean((2, 3)))

    model = seeded(Net)()
    x = torch.randn(4, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        one = model.body(x).relu()
        two = model.body(one).relu()
    found = observed(model, x)["body.weight"]
    close(found.magnitude_C, (one.mean((0, 2, 3)) + two.mean((0, 2, 3))) / 2)
    close(found.nuclear_C, torch.linalg.svdvals(torch.cat([one, two])).sum(2).mean(0))


def test_each_group_of_a_transposed_convolution_has_maps_of_its_own() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(4, 6, 2, groups=2), nn.Conv2d(6, 1, 1)).eval()
    x = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        want = model[0](x).abs().mean((0, 2, 3))
    close(observed(model, x)["0.weight"].magnitude_C, want)


@pytest.mark.parametrize("size", [1, 3, 7])
@pytest.mark.parametrize("net", list(NETS))
def test_same_statistics_whatever_the_batch_size(net: str, size: int) -> None:
    build, shape = NETS[net]
    x, _ = data(shape)
    want, found = observed(build(), x, len(x), x[:2]), observed(build(), x, size, x[:2])
    assert want.keys() == found.keys()
    assert len(want) >= 5
    for name, features in want.items():
        for field in ("magnitude_C", "zeros_C", "nuclear_C"):
            one, two = getattr(features, field), getattr(found[name], field)
            torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-5 * float(one.max()), msg=f"{name} {field}")


def test_attention_runs_with_the_samples_on_its_second_axis() -> None:
    """The packed projection sees [positions, samples, channels]: its slice is still [samples, positions]."""
    build, shape = NETS["transformer"]
    model = build()
    x, _ = data(shape)
    with torch.no_grad():
        projected = F.linear(model.embed(x), model.attention.in_proj_weight, model.attention.in_proj_bias)
    found = observed(model, x, 3, x[:2])["attention.in_proj_weight"]
    close(found.nuclear_C, torch.linalg.svdvals(projected.permute(2, 0, 1)).sum(1))


class Watched:
    """Batches that note, before each next one, how much tensor memory is alive."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.alive: list[int] = []

    def __iter__(self) -> Iterator[Tensor]:
        for number in range(self.count):
            batch, _ = data(NETS["conv"][1], seed=number)
            yield batch
            del batch
            gc.collect()
            self.alive.append(sum(o.numel() for o in gc.get_objects() if type(o) is Tensor))


def test_memory_does_not_grow_with_the_samples() -> None:
    build, shape = NETS["conv"]
    watched = Watched(4)
    observe_features(subject_of(build(), data(shape)[0]), Calibration(watched), nuclear=True)
    assert len(watched.alive) == 4
    assert max(watched.alive[1:]) <= watched.alive[1]


def test_nan_and_wrong_data_are_named() -> None:
    build, shape = NETS["conv"]
    x, _ = data(shape)
    subject = subject_of(build(), x)
    with pytest.raises(ModelError, match="feature maps hold NaN"):
        observe_features(subject, Calibration(x * torch.nan), nuclear=True)
    with pytest.raises(ModelError, match="fails on the calibration data"):
        observe_features(subject, Calibration(x[:, :2]))


def test_nothing_of_the_callers_is_written() -> None:
    class Rude(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            self.bn = nn.BatchNorm2d(4)
            self.fc = nn.Conv2d(4, 2, 1)
            self.register_buffer("calls", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            return self.fc(self.bn(self.conv(x.mul_(2))))

    model = Rude().train()
    x = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    before, kept = {k: v.clone() for k, v in model.state_dict().items()}, x.clone()
    observe_features(subject_of(model, x.clone()), Calibration(x))
    assert model.training
    assert torch.equal(x, kept)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
