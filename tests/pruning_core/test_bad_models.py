"""Models that cannot be pruned as they are: a typed error that names the place and says what to do."""

import pytest
import torch
from torch import Tensor, nn

import pruning_core as pc
from tests.models import IMAGE, NETS, seeded

HALF = pc.PruningSpec(ratio=0.5)


def stack() -> nn.Module:
    return seeded(lambda: nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3)))()


def refuse(model: nn.Module, inputs: object, says: str, spec: pc.PruningSpec = HALF) -> pc.PruningError:
    with pytest.raises(pc.PruningError) as caught:
        pc.prune(model, inputs, spec)
    assert says in str(caught.value)
    assert caught.value.where
    assert caught.value.fix
    return caught.value


def test_wrong_input_shape_names_the_module() -> None:
    assert "'0'" in refuse(stack(), torch.randn(1, 4, 8, 8), "forward fails on the example inputs").where


def test_nan_weights_name_the_parameter() -> None:
    model = stack()
    with torch.no_grad():
        next(iter(model.parameters()))[0, 0, 0, 0] = torch.nan
    assert "0.weight" in refuse(model, IMAGE(), "NaN or infinite").where


@pytest.mark.filterwarnings("ignore:Lazy modules:UserWarning")
def test_lazy_module() -> None:
    assert refuse(nn.Sequential(nn.LazyConv2d(8, 3)), IMAGE(), "not initialised yet").where == "0"


class NoTensor(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)

    def forward(self, x: Tensor) -> str:
        self.conv(x)
        return "done"


def test_no_tensor_comes_out() -> None:
    refuse(NoTensor(), IMAGE(), "returns no tensor")


def test_nothing_to_prune_says_why() -> None:
    refuse(nn.Sequential(nn.Linear(4, 3)), torch.randn(2, 4), "reaches the model output")


def test_everything_excluded() -> None:
    refuse(stack(), IMAGE(), 'excluded by "*"', pc.PruningSpec(exclude=("*",)))


def test_a_glob_that_matches_nothing_suggests_the_nearest() -> None:
    refuse(NETS["residual"].build(), IMAGE(), "did you mean", pc.PruningSpec(exclude=("stemm",)))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_wrappers_are_named() -> None:
    assert refuse(nn.DataParallel(stack()), IMAGE(), "wrapped in DataParallel").fix == "pass model.module"
    refuse(torch.compile(stack()), IMAGE(), "is compiled")  # type: ignore[arg-type]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_named() -> None:
    refuse(torch.jit.trace(stack(), IMAGE()), IMAGE(), "TorchScript")


def test_an_input_on_another_device() -> None:
    assert "move it there" in refuse(stack(), IMAGE().to("meta"), "an example input is on meta").fix  # type: ignore[union-attr]


@pytest.mark.parametrize("inputs", ["text", 3, None])
def test_inputs_that_are_none(inputs: object) -> None:
    refuse(stack(), inputs, "example_inputs is a")


def test_an_unknown_check() -> None:
    with pytest.raises(pc.SpecError, match="did you mean 'numeric'"):
        pc.prune(stack(), IMAGE(), HALF, check="numerics")
