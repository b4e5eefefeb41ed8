"""Gradients: against autograd on the caller's own model, whatever the batch size and the precision."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning_core.calibration import Calibration
from pruning_core.errors import ModelError, SpecError
from pruning_core.observe.gradients import observe_gradients
from tests.models import SharedWeights, seeded
from tests.pruning_core.observe.nets import NETS, data, labelled


def autograd_of(model: nn.Module, x: Tensor, target: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    F.cross_entropy(model(x), target).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_by_hand() -> None:
    """y = w x, loss = mean y t: samples x = 1, 3 with t = 2, -2 have gradients 2 and -6."""
    model = nn.Linear(1, 1, bias=False)
    batches = [(torch.tensor([[1.0], [3.0]]), torch.tensor([[2.0], [-2.0]]))]
    calibration = Calibration(batches, labelled=True, loss=lambda y, t: (y * t).mean())  # type: ignore[operator]
    found = observe_gradients(model, calibration, square=True)
    assert found.samples == 2
    assert found.mean["weight"].tolist() == [[-2.0]]
    assert found.square["weight"].tolist() == [[20.0]]


@pytest.mark.parametrize("size", [1, 3, 7, 10])
@pytest.mark.parametrize("net", list(NETS))
def test_mean_and_squares_whatever_the_batch_size(net: str, size: int) -> None:
    build, shape = NETS[net]
    x, target = data(shape)
    found = observe_gradients(build(), labelled(x, target, size), square=True)
    model = build()
    mean = autograd_of(model, x, target)
    each = [autograd_of(model, x[i : i + 1], target[i : i + 1]) for i in range(len(x))]
    assert found.mean.keys() == found.square.keys() == mean.keys()
    for name, want in mean.items():
        square = torch.stack([g[name].square() for g in each]).mean(0)
        torch.testing.assert_close(found.mean[name], want, rtol=1e-5, atol=1e-5 * float(want.abs().max()))
        torch.testing.assert_close(found.square[name], square, rtol=1e-5, atol=1e-5 * float(square.max()))


def test_tied_weights_have_one_gradient_under_their_first_name() -> None:
    model = seeded(SharedWeights)()
    x, target = data((4, 3, 8, 8))
    found = observe_gradients(model, labelled(x, target, 3))
    assert "left.weight" in found.mean
    assert "right.weight" not in found.mean
    torch.testing.assert_close(found.mean["left.weight"], autograd_of(model, x, target)["left.weight"], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_single(dtype: torch.dtype) -> None:
    build, shape = NETS["conv"]
    x, target = data(shape)
    half = build().to(dtype)
    found = observe_gradients(half, labelled(x.to(dtype), target, 4), square=True)
    want = autograd_of(copy.deepcopy(half).float(), x.to(dtype).float(), target)
    for name, gradient in want.items():
        assert found.mean[name].dtype == torch.float32
        torch.testing.assert_close(found.mean[name], gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def test_the_callers_model_is_untouched_and_may_be_frozen() -> None:
    build, shape = NETS["conv"]
    model = build().train().requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    x, target = data(shape)
    with torch.inference_mode():
        found = observe_gradients(model, labelled(x, target, 4))
    assert model.training
    assert all(p.grad is None and not p.requires_grad for p in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    want = autograd_of(build(), x, target)["conv1.weight"]  # in evaluation mode
    torch.testing.assert_close(found.mean["conv1.weight"], want, rtol=1e-5, atol=1e-6)


def test_what_the_loss_does_not_reach_has_no_gradient() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(2, 3), nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    found = observe_gradients(Net(), labelled(*data((4, 2), 3), 2))
    assert not found.mean["spare.weight"].any()


def test_only_what_is_asked_for_is_computed() -> None:
    build, shape = NETS["conv"]
    x, target = data(shape)
    assert not observe_gradients(build(), labelled(x, target, 4)).square
    assert not observe_gradients(build(), labelled(x, target, 4), mean=False, square=True).mean


@pytest.mark.parametrize(
    ("calibration", "error", "text"),
    [
        (lambda x, t: Calibration(x), SpecError, "labels are needed"),
        (lambda x, t: labelled(x, t + 100, 4), SpecError, "the loss fails"),
        (lambda x, t: labelled(x[:, :2], t, 4), ModelError, "forward fails on the calibration data"),
        (lambda x, t: labelled(x * torch.nan, t, 4), ModelError, "gradients hold NaN"),
        (lambda x, t: Calibration([(x, t)], labelled=True, loss=lambda y, t: y), SpecError, "no single number"),
        (lambda x, t: Calibration([(x, t)], labelled=True, loss=lambda y, t: y.detach().mean()), ModelError, "depend"),
    ],
)
def test_errors(calibration: object, error: type[Exception], text: str) -> None:
    build, shape = NETS["conv"]
    with pytest.raises(error, match=text):
        observe_gradients(build(), calibration(*data(shape)))  # type: ignore[operator]
