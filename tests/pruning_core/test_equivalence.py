"""The oracle of the engine, on every net: muting the removed channels in the original gives what the pruned net computes."""

import pytest
import torch
from torch import nn

import pruning_core as pc
from pruning_core.inputs import ExampleInputs
from pruning_core.trace import quiet_kernels
from pruning_core.tree import tensors
from pruning_core.twin import named_tensors, twin
from tests.awkward import AWKWARD
from tests.models import NETS, Case

CASES = {**NETS, **AWKWARD}
HALF = pc.PruningSpec(ratio=0.5)


def run(model: nn.Module, inputs: object) -> list[torch.Tensor]:
    given = ExampleInputs.of(inputs)
    with torch.no_grad(), quiet_kernels():
        return list(tensors(model(*given.args, **given.kwargs)))


def muted_from_outside(model: nn.Module, plan: pc.PruningPlan) -> nn.Module:
    """The original with the removed entries of every parameter at zero, told by the plan's slices alone."""
    copy = twin(model, lambda t: t.detach().clone().double() if t.is_floating_point() else t.detach().clone())
    named = named_tensors(copy)
    for cut in plan.slices:
        gone = sorted(set(range(cut.width)) - set(cut.keep))
        if cut.tensor.rpartition(".")[2] != "running_var":
            named[cut.tensor].index_fill_(cut.axis, torch.tensor(gone), 0)
    return copy


@pytest.mark.parametrize("name", sorted(CASES))
def test_pruned_net_computes_what_the_muted_original_computes(name: str) -> None:
    case = CASES[name]
    model, inputs = case.build(), case.inputs()
    result = pc.prune(model, inputs, HALF, check="numeric")
    assert result.report.mask_error is not None
    assert result.report.mask_error < 1e-5
    assert [t.shape for t in run(result.model, inputs)] == [t.shape for t in run(model, inputs)]


@pytest.mark.parametrize("name", sorted(NETS))
def test_an_oracle_without_the_engine_agrees(name: str) -> None:
    """No trace, no units: only the plan's slices and plain PyTorch, in float64."""
    case = NETS[name]
    result = pc.prune(case.build(), case.inputs(), HALF)
    assert not result.plan.approximate
    x = case.inputs()
    assert isinstance(x, torch.Tensor)
    pruned = twin(result.model, lambda t: t.detach().clone().double() if t.is_floating_point() else t.detach().clone())
    wanted = run(muted_from_outside(case.build(), result.plan), x.double())
    for got, want in zip(run(pruned, x.double()), wanted, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.coupled or case.locked))
def test_coupled_layers_lose_the_same_channels_and_locked_ones_none(name: str) -> None:
    """Against the truth that is written by hand beside each net."""
    case = CASES[name]
    model = case.build()
    plan = pc.plan(model, case.inputs(), HALF)
    kept: dict[str, tuple[int, ...]] = {}
    first = {id(t): name for name, t in reversed(list(model.named_parameters(remove_duplicate=False)))}
    cuts = {(cut.tensor, cut.axis): cut.keep for cut in plan.slices}
    for layer, module in model.named_modules():
        weight = module._parameters.get("weight")
        out = 1 if isinstance(module, nn.modules.conv._ConvTransposeNd) else 0
        if weight is not None and (first[id(weight)], out) in cuts:
            kept[layer] = cuts[first[id(weight)], out]
    for layers in case.coupled:
        found = {kept.get(layer) for layer in layers}
        assert len(found) == 1, f"{sorted(layers)} keep different channels: {found}"
    for layer in case.locked:
        assert layer not in kept


def test_the_oracle_can_fail() -> None:
    """A pruned net with two channels swapped must be caught."""
    case: Case = NETS["conv_stack"]
    model, x = case.build(), case.inputs()
    result = pc.prune(model, x, HALF)
    weight = dict(result.model.named_parameters())["conv2.weight"]
    with torch.no_grad():
        weight[:, [0, 1]] = weight[:, [1, 0]]
    from pruning_core.oracle import mask_error
    from pruning_core.planner import redraft
    from pruning_core.study import study

    draft = redraft(study(model, ExampleInputs.of(x)), result.plan)
    with pytest.raises(pc.VerifyError, match="differs from the muted original"):
        mask_error(model, result.model, draft.prediction, ExampleInputs.of(x))
