"""Inference mode and autocast around a call: the same result as without."""

import contextlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pruning_core as pc
from tests.models import seeded

MODES: dict[str, Callable[[], contextlib.AbstractContextManager[object]]] = {
    "inference_mode": torch.inference_mode,
    "no_grad": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
}
X = torch.rand(32, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 5


def net() -> nn.Module:
    body = [nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU()]
    return seeded(lambda: nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 5)))()


def pruned(model: nn.Module, x: Tensor, criterion: str) -> pc.PruneResult:
    spec = pc.PruningSpec(criterion=criterion, allocator="slamp", recalibrate_bn=True)
    return pc.prune(model, x[:2], spec, pc.Calibration([(x, Y)], labelled=True), check="numeric")


@pytest.mark.parametrize("criterion", ["reconstruction", "taylor", "nuclear_norm"])
@pytest.mark.parametrize("mode", sorted(MODES))
def test_the_result_is_that_without_the_mode(mode: str, criterion: str) -> None:
    torch.manual_seed(0)
    model = net()
    expected = pruned(model, X, criterion)
    with MODES[mode]():
        found = pruned(model, X.clone(), criterion)
        is_on = torch.is_inference_mode_enabled() or not torch.is_grad_enabled() or torch.is_autocast_enabled("cpu")
    assert is_on
    assert found.plan == expected.plan
    assert not any(p.is_inference() for p in found.model.parameters())
    for name, tensor in found.model.state_dict().items():
        torch.testing.assert_close(tensor, expected.model.state_dict()[name])


def test_weights_made_in_inference_mode_are_refused() -> None:
    with torch.inference_mode():
        model = net()
        with pytest.raises(pc.ModelError, match="inference tensors"):
            pruned(model, X, "l2_norm")


CALLS: dict[str, Callable[[nn.Module], object]] = {
    "plan": lambda model: pc.plan(model, X[:2], pc.PruningSpec(allocator="slamp"), X),
    "recommend": lambda model: pc.recommend(model, X[:2], pc.PruningSpec(allocator="slamp"), X),
    "sensitivity": lambda model: pc.sensitivity(model, X[:2], X, (0.5,)),
    "inspect": lambda model: pc.inspect(model, X[:2]),
    "couplings": lambda model: pc.couplings(model, X[:2]),
}


@pytest.mark.parametrize("call", sorted(CALLS))
@pytest.mark.parametrize("mode", sorted(MODES))
def test_other_functions(mode: str, call: str) -> None:
    model = net()
    expected = CALLS[call](model)
    with MODES[mode]():
        assert str(CALLS[call](model)) == str(expected)
