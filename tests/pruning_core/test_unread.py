"""Layers that do not run on the example inputs: what they read stays if training shows it; the others are named."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning_core as pc
from tests.awkward import AWKWARD
from tests.models import IMAGE, seeded

HALF = pc.PruningSpec(ratio=0.5)


class Spare(nn.Module):
    """A block that nothing calls, and a parameter for later use."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3, padding=1)
        self.spare = nn.Sequential(nn.Conv2d(16, 16, 1), nn.BatchNorm2d(16))
        self.token = nn.Parameter(torch.ones(1, 16, 1, 1))
        self.head = nn.Conv2d(16, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu())


class NeedsTargets(Spare):
    """In training it cannot be run on the example inputs."""

    def forward(self, x: Tensor, targets: Tensor | None = None) -> Tensor:
        if self.training and targets is None:
            raise ValueError("targets are needed in training")
        return super().forward(x)


class Dropping(Spare):
    """Run on real values, with dropout in training."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        return self.head(F.dropout(x, 0.5, self.training) * x.amax().item())


def test_what_an_auxiliary_head_reads_stays_and_is_named() -> None:
    case = AWKWARD["auxiliary_head"]
    result = pc.prune(case.build(), case.inputs(), HALF)
    reasons = {layer: lock.reason for lock in result.plan.locked for layer in lock.layers}
    assert "read by aux.0, which runs only in training" in reasons["conv1"]
    assert not result.report.notes
    assert {layer for cut in result.plan.cuts for layer in cut.layers} == {"conv2"}


def test_layers_that_never_run_are_named_in_the_plan_and_in_the_report() -> None:
    for net in (Spare, NeedsTargets):
        result = pc.prune(seeded(net)(), IMAGE(), HALF)
        assert result.plan.not_run == ("spare", "token")
        assert "may not fit: spare, token" in str(result.plan)
        assert "may not fit: spare, token" in str(result.report)
        assert pc.PruningPlan.from_json(result.plan.to_json()) == result.plan


def test_a_run_in_training_mode_draws_no_numbers_of_the_caller() -> None:
    model, x = seeded(Dropping)(), IMAGE()
    torch.manual_seed(3)
    want = torch.rand(3)
    torch.manual_seed(3)
    pc.prune(model, x, HALF)
    assert torch.equal(torch.rand(3), want)


def test_the_branch_that_was_not_taken_is_named() -> None:
    case = AWKWARD["data_dependent"]
    result = pc.prune(case.build(), case.inputs(), HALF)
    assert result.plan.not_run in {("hot",), ("cold",)}
