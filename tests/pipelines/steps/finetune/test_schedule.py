"""Learning rates against torch's own schedules and by hand."""

import pytest
import torch

from pipelines.steps.finetune.schedule import progress, rate_factor
from tests.pipelines.steps.finetune.nets import options


def torch_rates(make: type, steps: int, **arguments: object) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 1.0)
    schedule = make(optimizer, **arguments)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return rates


def test_cosine_is_torch_s() -> None:
    expected = torch_rates(torch.optim.lr_scheduler.CosineAnnealingLR, 40, T_max=40)
    assert [rate_factor("cosine", None, step / 40) for step in range(40)] == pytest.approx(expected)


def test_one_cycle_is_torch_s() -> None:
    expected = torch_rates(torch.optim.lr_scheduler.OneCycleLR, 41, max_lr=1.0, total_steps=41, pct_start=0.3)
    # torch's rise ends a step earlier and its fall takes the last step into account
    rise, fall = 0.3 * 41 - 1, 40.0
    ours = [
        rate_factor("one_cycle", None, 0.3 * step / rise if step <= rise else 0.3 + 0.7 * (step - rise) / (fall - rise))
        for step in range(41)
    ]
    assert ours == pytest.approx(expected)


def test_warmup_rises_in_a_line_and_then_all_falls() -> None:
    rates = [rate_factor("cosine", 0.25, done) for done in (0, 0.125, 0.25, 0.625, 1)]
    assert rates == pytest.approx([0, 0.5, 1, 0.5, 0])


def test_the_budget_that_is_used_up_first_counts() -> None:
    both = options(minutes=2)
    assert progress(both, 10, 40, seconds=12) == 0.25
    assert progress(both, 10, 40, seconds=60) == 0.5
    assert progress(both, 10, 40, seconds=600) == 1
    assert progress(options(), 10, 40, seconds=600) == 0.25
