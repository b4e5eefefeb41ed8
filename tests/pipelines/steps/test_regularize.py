"""Penalties by hand and against autograd, and what training with them does to the weakest channels."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn

import pruning_core as pc
from pipelines.config import Finetune
from pipelines.data import ArraySplit, Data
from pipelines.errors import ConfigError
from pipelines.steps.finetune import finetune
from pipelines.steps.regularize import Regularizer, bn_scale_l1, channel_norms, group_lasso, penalty_of
from pipelines.tasks import task_of


class Two(nn.Module):
    """Two hidden channels: (3, 0) in, 4 out makes 5; (0, 1) in, bias 2, 2 out makes 3."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer = nn.Linear(2, 2), nn.Linear(2, 1)
        with torch.no_grad():
            self.inner.weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
            self.inner.bias.copy_(torch.tensor([0.0, 2.0]))
            self.outer.weight.copy_(torch.tensor([[4.0, 2.0]]))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.outer(torch.relu(self.inner(x)))
        return y


def test_group_lasso_by_hand() -> None:
    model = Two()
    (coupling,) = pc.couplings(model, torch.zeros(1, 2))
    assert (coupling.name, coupling.layers, coupling.channels) == ("inner", ("inner",), 2)
    assert {(s.parameter, s.axis, s.channel_of) for s in coupling.slices} == {
        ("inner.weight", 0, (0, 1)),
        ("inner.bias", 0, (0, 1)),
        ("outer.weight", 1, (0, 1)),
    }
    assert channel_norms(model, coupling).tolist() == [5.0, 3.0]
    assert group_lasso([coupling])(model).item() == 8.0


def test_bn_scale_l1_by_hand() -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3, affine=False), nn.BatchNorm1d(2))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([1.0, -2.0, 0.0]))
        model[3].weight.copy_(torch.tensor([0.5, -0.25]))
    penalty = bn_scale_l1(model)
    assert penalty.item() == 3.75
    penalty.backward()
    assert model[1].weight.grad.tolist() == [1.0, -1.0, 0.0]
    assert model[0].weight.grad is None


class Coupled(nn.Module):
    """A residual addition, a depthwise convolution and a flatten: channels that stand for several positions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Conv2d(1, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Conv2d(6, 6, 1)
        self.depthwise, self.head = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.Linear(6 * 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.a(x)))
        y: Tensor = self.head(torch.relu(self.depthwise(x + self.b(x))).flatten(1))
        return y


def test_a_penalised_channel_is_what_a_cut_takes_away() -> None:
    torch.manual_seed(0)
    model, x = Coupled().eval(), torch.randn(2, 1, 2, 2)
    (coupling,) = pc.couplings(model, x)
    norms = channel_norms(model, coupling).detach()
    for channel in range(6):
        plan = pc.plan(model, x, pc.PruningSpec(index={"a": (channel,)}, min_channels=1))
        total = 0.0
        for name, parameter in model.named_parameters():
            for cut in (s for s in plan.slices if s.tensor == name):
                gone = torch.tensor([k for k in range(cut.width) if k not in cut.keep])
                total += parameter.detach().index_select(cut.axis, gone).square().sum().item()
        assert float(norms[channel]) == pytest.approx(math.sqrt(total), rel=1e-5)


@pytest.mark.parametrize("kind", ["bn_l1", "group_lasso"])
def test_the_callback_adds_the_gradient_that_autograd_finds(kind: str) -> None:
    torch.manual_seed(0)
    model, x = Coupled(), torch.randn(2, 1, 2, 2)
    penalty = penalty_of(kind, model, x)
    used = [p for p in model.parameters() if p.requires_grad]
    wanted = torch.autograd.grad(penalty(model), used, allow_unused=True)
    wrapped = pl.LightningModule()
    wrapped.module = model
    model(x).square().sum().backward()
    before = [p.grad.clone() for p in used if p.grad is not None]
    Regularizer(penalty, 0.3).on_after_backward(pl.Trainer(logger=False, enable_checkpointing=False), wrapped)
    for parameter, old, gradient in zip(used, before, wanted, strict=True):
        added = torch.zeros_like(old) if gradient is None else 0.3 * gradient
        torch.testing.assert_close(parameter.grad, old + added)


def test_the_gradient_of_group_lasso_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    model = Coupled().double()
    penalty = penalty_of("group_lasso", model, torch.randn(2, 1, 2, 2, dtype=torch.float64))
    assert len(list(model.parameters())) == 10
    names = [name for name, _ in model.named_parameters()]

    class Held(nn.Module):
        def __init__(self, tensors: tuple[Tensor, ...]) -> None:
            super().__init__()
            self.tensors = dict(zip(names, tensors, strict=True))

        def named_parameters(self, *_: object, **__: object) -> list[tuple[str, Tensor]]:  # type: ignore[override]
            return list(self.tensors.items())

    def value(*tensors: Tensor) -> Tensor:
        return penalty(Held(tensors))

    assert torch.autograd.gradcheck(value, tuple(p.detach().requires_grad_() for p in model.parameters()))


def test_a_channel_at_zero_has_no_gradient_and_no_nan() -> None:
    model = Two()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    penalty_of("group_lasso", model, torch.zeros(1, 2))(model).backward()
    assert all(p.grad is None or not p.grad.any() for p in model.parameters())


def blobs(images: int, seed: int) -> ArraySplit:
    rng = np.random.default_rng(seed)
    y = np.arange(images) % 3
    centres = np.array([[2.0, 0], [-2, 2], [-2, -2]])
    return ArraySplit((centres[y] + rng.normal(size=(images, 2)) * 0.3).astype(np.float32), y)


def gammas(model: nn.Module, _x: Tensor) -> Tensor:
    return model[1].weight.detach().abs()  # type: ignore[index, union-attr, operator]


def slices(model: nn.Module, x: Tensor) -> Tensor:
    return channel_norms(model, pc.couplings(model, x)[0]).detach()


@pytest.mark.parametrize(("kind", "sizes"), [("bn_l1", gammas), ("group_lasso", slices)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_with_a_penalty_shrinks_the_weakest_channels(
    tmp_path: Path, kind: str, sizes: Callable[[nn.Module, Tensor], Tensor], optimizer: str
) -> None:
    data = Data("blobs", 3, blobs(90, 0), blobs(30, 1), blobs(30, 2), "digest", (2,))
    example = torch.from_numpy(data.train.x[:2])
    options = Finetune(epochs=30, learning_rate=0.02, batch_size=16, optimizer=optimizer)  # type: ignore[arg-type]
    found = []
    for weight in (0.0, 0.06):
        torch.manual_seed(0)
        module = nn.Sequential(nn.Linear(2, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)).eval()
        callback = Regularizer(penalty_of(kind, module, example), weight)
        curve = finetune(module, data, task_of(data), options, tmp_path, callbacks=[callback]).curve
        assert curve[-1].val_metric > 0.9
        found.append(sizes(module, example).sort().values)
    without, with_penalty = found
    assert float(with_penalty[:8].sum()) < 0.5 * float(without[:8].sum())
    ratios = [float(s[:8].sum() / s.max()) for s in found]
    assert ratios[1] < ratios[0]  # the weakest shrink more than the strongest does


def test_a_model_that_a_penalty_cannot_act_on_is_refused() -> None:
    with pytest.raises(ConfigError, match="no BatchNorm"):
        penalty_of("bn_l1", Two(), torch.zeros(1, 2))
    with pytest.raises(ConfigError, match="no channel"):
        penalty_of("group_lasso", nn.Sequential(nn.Linear(2, 2)), torch.zeros(1, 2))
    assert float(penalty_of("none", Two(), torch.zeros(1, 2))(Two())) == 0
