"""Causal attention: the n-th query sees the first n keys, so a position goes on both sides or on none."""

import torch
from torch.nn import functional as F

import pruning_core as pc
from tests.awkward import AWKWARD
from tests.awkward.attention import CausalTokens


def test_tokens_that_are_left_answer_like_a_shorter_sequence() -> None:
    """By plain PyTorch: the same attention over the kept tokens of the original."""
    case = AWKWARD["causal_tokens"]
    model, x = case.build().double(), case.inputs()
    assert isinstance(model, CausalTokens)
    assert isinstance(x, torch.Tensor)
    x = x.double()
    result = pc.prune(model, x, pc.PruningSpec(ratio=0.5, include=("mix",)), check="numeric")
    (cut,) = result.plan.cuts
    assert [group for group, _ in result.plan.approximate] == ["mix"]
    with torch.no_grad():
        left = model.mix(x.mT).mT[:, list(cut.keep)]
        out = F.scaled_dot_product_attention(model.query(left), model.key(left), model.value(left), is_causal=True)
        torch.testing.assert_close(result.model(x), model.fc(out.sum(1)))


def test_positions_of_one_side_alone_are_locked_by_name() -> None:
    for name in ("causal_queries", "causal_keys"):
        case = AWKWARD[name]
        plan = pc.plan(case.build(), case.inputs(), pc.PruningSpec(ratio=0.5))
        assert "mix" in {layer for lock in plan.locked for layer in lock.layers}, name
