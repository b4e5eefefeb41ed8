"""On a GPU the engine does what it does on the CPU, and what it returns stays there."""

import pytest
import torch

import pruning_core as pc
from pruning_core import tree
from pruning_core.criteria import CRITERIA
from tests.models import NETS

if not torch.cuda.is_available():
    pytest.skip("needs a GPU, and this machine has none", allow_module_level=True)

# the same arithmetic as on the CPU
torch.backends.cudnn.allow_tf32 = False

PICTURES = ["residual", "depthwise_separable", "grouped", "squeeze_excite"]
SMALL = {"min_channels": 2}


def on_gpu(value: object) -> object:
    return tree.map_tensors(lambda t: t.cuda(), value)


def images(count: int = 64) -> torch.Tensor:
    return torch.randn(count, 3, 16, 16, generator=torch.Generator().manual_seed(5))


def labelled() -> pc.Calibration:
    x, y = images(), torch.arange(64) % 2
    return pc.Calibration(list(zip(x.split(16), y.split(16), strict=True)), labelled=True)


def keeps(plan: pc.PruningPlan) -> list[tuple[int, ...]]:
    return [cut.keep for cut in plan.cuts]


@pytest.mark.parametrize("name", sorted(NETS))
def test_the_plan_is_the_cpu_s_and_the_model_stays_there(name: str) -> None:
    case = NETS[name]
    result = pc.prune(case.build().cuda(), on_gpu(case.inputs()), pc.PruningSpec(ratio=0.5), check="numeric")
    assert {p.device.type for p in result.model.parameters()} == {"cuda"}
    assert keeps(result.plan) == keeps(pc.plan(case.build(), case.inputs(), pc.PruningSpec(ratio=0.5)))
    again = pc.apply(case.build().cuda(), pc.PruningPlan.from_json(result.plan.to_json()))
    assert {p.device.type for p in again.parameters()} == {"cuda"}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("compensation", ["least_squares", "sequential"])
def test_repairs_are_the_cpu_s(name: str, compensation: str) -> None:
    """Calibration data is moved to the model."""
    case = NETS[name]
    x = case.inputs()
    assert isinstance(x, torch.Tensor)
    spec = pc.PruningSpec(ratio=0.5, criterion="l2_norm", compensation=compensation, recalibrate_bn=True, **SMALL)
    here = pc.prune(case.build(), x, spec, images())
    there = pc.prune(case.build().cuda(), x.cuda(), spec, images())
    with torch.no_grad():
        expected, found = here.model(x), there.model(x.cuda()).cpu()
    assert (found - expected).norm() < 0.01 * expected.norm()
    for one, two in zip(here.report.repairs, there.report.repairs, strict=True):
        assert (one.layer, one.rows) == (two.layer, two.rows)
        assert two.error_after == pytest.approx(one.error_after, rel=0.1, abs=1e-4)


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_every_criterion(criterion: str) -> None:
    """Where two channels score alike, rounding decides."""
    case = NETS["residual"]
    spec = pc.PruningSpec(ratio=0.5, criterion=criterion, **SMALL)
    there = keeps(pc.plan(case.build().cuda(), on_gpu(case.inputs()), spec, labelled()))
    here = keeps(pc.plan(case.build(), case.inputs(), spec, labelled()))
    for one, two in zip(here, there, strict=True):
        assert len(one) == len(two)
        assert len(set(one) & set(two)) >= 0.9 * len(one)


def test_a_latency_budget_is_measured_there() -> None:
    case = NETS["residual"]
    spec = pc.PruningSpec(budget={"latency_ms": "1.1x"}, **SMALL)
    result = pc.prune(case.build().cuda(), on_gpu(case.inputs()), spec, images())
    assert {p.device.type for p in result.model.parameters()} == {"cuda"}
    assert result.report.predicted_ms is not None
    before, after = result.report.predicted_ms
    assert 0 < after <= before / 1.1


def test_sensitivity_is_the_cpu_s() -> None:
    case, spec = NETS["residual"], pc.PruningSpec(**SMALL)
    here = pc.sensitivity(case.build(), case.inputs(), images(), ratios=(0.5,), spec=spec)
    there = pc.sensitivity(case.build().cuda(), on_gpu(case.inputs()), images(), ratios=(0.5,), spec=spec)
    assert [row.point for row in there.rows] == [row.point for row in here.rows]
    assert [row.figure for row in there.rows] == pytest.approx([row.figure for row in here.rows], rel=0.05)
