"""One record for all criteria, and how often the data is read for it."""

import pytest
import torch
from torch import Tensor, nn

from pruning_core.calibration import Calibration
from pruning_core.criteria import NEEDS
from pruning_core.errors import SpecError
from pruning_core.observe.observations import Observations, observe
from tests.models import NETS as PRUNED
from tests.pruning_core.observe.nets import NETS, Loader, data, subject_of

FORWARD = {"features", "nuclear", "gamma"}


def counted(needs: set[str], size: int = 4) -> tuple[Observations, int, list[int]]:
    """What is observed, passes over the data, samples of each forward of the model on data."""
    build, shape = NETS["conv"]
    x, target = data(shape)
    model = build()
    forwards: list[int] = []

    def count(_module: nn.Module, args: tuple[Tensor, ...]) -> None:
        if args[0].device.type != "meta":
            forwards.append(len(args[0]))

    model.register_forward_pre_hook(count)  # copies of the model have it, too
    subject = subject_of(model, x[:2])
    forwards.clear()
    loader = Loader(x, target, size)
    return observe(subject, Calibration(loader, labelled=True), needs), loader.passes, forwards


def test_all_statistics_of_feature_maps_come_from_one_pass() -> None:
    seen, passes, forwards = counted(FORWARD)
    assert passes == 1
    assert forwards == [4, 4, 2]
    assert seen.samples == 10
    assert ("conv1.weight", 0) in seen.features
    assert not seen.gradients
    assert not seen.squares


def test_gradients_take_one_more_pass() -> None:
    seen, passes, forwards = counted(FORWARD | {"gradients"})
    assert passes == 2
    assert forwards == [4, 4, 2] * 2
    assert seen.gradients
    assert not seen.squares


def test_everything_of_a_sweep_takes_two_passes() -> None:
    seen, passes, forwards = counted(set().union(*NEEDS.values()))
    assert passes == 2
    assert sorted(forwards) == sorted([4, 4, 2] * 2 + [1] * 10)  # squares: sample by sample
    assert seen.features
    assert seen.squares


def test_weights_and_gamma_need_no_data() -> None:
    build, shape = NETS["conv"]
    subject = subject_of(build(), data(shape)[0])
    assert not observe(subject, None, set()).features
    gamma = observe(subject, None, {"gamma"}).gamma
    assert list(gamma) == [("conv1.weight", 0)]
    torch.testing.assert_close(gamma["conv1.weight", 0], subject.tensors["bn1.weight"].detach().abs())


def test_singular_values_only_when_asked_for() -> None:
    seen, _, _ = counted({"features"})
    assert all(features.nuclear_C is None for features in seen.features.values())
    assert not seen.gamma


@pytest.mark.parametrize("need", ["features", "nuclear", "gradients", "squares"])
def test_missing_data_names_the_way_out(need: str) -> None:
    build, shape = NETS["conv"]
    with pytest.raises(SpecError, match="none was given") as caught:
        observe(subject_of(build(), data(shape)[0]), None, {need})
    assert "l2_norm" in caught.value.fix


@pytest.mark.parametrize("need", ["gradients", "squares"])
def test_missing_labels_are_found_before_any_run(need: str) -> None:
    build, shape = NETS["conv"]
    x, _ = data(shape)
    with pytest.raises(SpecError, match="needs labels") as caught:
        observe(subject_of(build(), x), Calibration(x), {"features", need})
    assert "labelled=True" in caught.value.fix
    assert "'activation'" in caught.value.fix


def test_fewer_samples_than_asked_for() -> None:
    build, shape = NETS["conv"]
    x, _ = data(shape)
    with pytest.raises(SpecError, match="99 samples were asked for, the calibration data holds 10"):
        observe(subject_of(build(), x), Calibration(x, samples=99), {"features"})


def test_gamma_behind_each_layer_of_a_residual_net() -> None:
    case = PRUNED["residual"]
    subject = subject_of(case.build(), case.inputs())  # type: ignore[arg-type]
    gamma = observe(subject, None, {"gamma"}).gamma
    assert {weight for weight, _ in gamma} == {f"conv{k}.weight" for k in (1, 2, 3, 4)}
    for k in (1, 2, 3, 4):
        torch.testing.assert_close(gamma[f"conv{k}.weight", 0], subject.tensors[f"bn{k}.weight"].detach().abs())


def test_gamma_of_a_norm_over_another_axis_is_not_taken() -> None:
    """A BatchNorm behind a linear layer on [N, T, C] scales T, not the layer's channels."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.bn, self.out = nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.bn(self.fc(x)))

    model = Net().eval()
    assert observe(subject_of(model, torch.randn(2, 4)), None, {"gamma"}).gamma
    assert not observe(subject_of(model, torch.randn(2, 5, 4)), None, {"gamma"}).gamma
