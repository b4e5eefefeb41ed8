"""The caller's model is bit-identical afterwards, whatever happens: same values, flags and hooks, nothing cached on it."""

import copy

import pytest
import torch
from torch import nn

import pruning_core as pc
from tests.awkward import AWKWARD
from tests.models import IMAGE, NETS, seeded

CASES = {**NETS, **AWKWARD}


def state(model: nn.Module) -> dict[str, object]:
    """Everything a caller could notice."""
    found: dict[str, object] = {}
    for name, module in model.named_modules():
        found[f"{name}|training"] = module.training
        found[f"{name}|keys"] = sorted(module.__dict__)
        found[f"{name}|hooks"] = (len(module._forward_hooks), len(module._forward_pre_hooks))
        for key, value in module.__dict__.items():
            if isinstance(value, int | str | tuple):
                found[f"{name}|{key}"] = copy.copy(value)
    for key, tensor in model.state_dict(keep_vars=True).items():
        found[key] = (tensor.detach().clone(), tensor.requires_grad, tensor.grad, tensor.data_ptr())
    return found


def assert_same(before: dict[str, object], after: dict[str, object]) -> None:
    assert before.keys() == after.keys()
    for key, value in before.items():
        other = after[key]
        if isinstance(value, tuple) and len(value) == 4 and isinstance(value[0], torch.Tensor):
            assert isinstance(other, tuple)
            assert torch.equal(value[0], other[0]), key
            assert value[1:] == other[1:], key
        else:
            assert value == other, key


@pytest.mark.parametrize("name", sorted(CASES))
def test_pruning_does_not_touch_the_model(name: str) -> None:
    case = CASES[name]
    model = case.build().train()
    before = state(model)
    pc.prune(model, case.inputs(), pc.PruningSpec(ratio=0.5), check="numeric")
    assert_same(before, state(model))


class Fails(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3)
        self.wrong = nn.Conv2d(20, 8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.wrong(self.conv(x))


def test_a_failure_does_not_touch_the_model() -> None:
    model = seeded(Fails)()
    before = state(model)
    with pytest.raises(pc.ModelError) as caught:
        pc.prune(model, IMAGE(), pc.PruningSpec())
    assert "wrong" in caught.value.where
    assert "forward fails" in caught.value.what
    assert_same(before, state(model))


@pytest.mark.parametrize("name", ["residual", "lstm_head", "transformer_encoder", "tied_embedding"])
def test_the_copy_keeps_mode_and_flags(name: str) -> None:
    case = CASES[name]
    model = case.build().train()
    frozen = next(iter(dict(model.named_parameters())))
    dict(model.named_parameters())[frozen].requires_grad_(False)
    pruned = pc.prune(model, case.inputs(), pc.PruningSpec(ratio=0.5)).model
    assert pruned.training
    assert not dict(pruned.named_parameters())[frozen].requires_grad
    assert type(pruned) is type(model)
    ours = {t.data_ptr() for t in model.state_dict().values() if t.numel()}
    assert not ours & {t.data_ptr() for t in pruned.state_dict().values() if t.numel()}, "no memory is shared"
