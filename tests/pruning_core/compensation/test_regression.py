"""Regression over rows against the one over inputs, and both against numpy's least squares."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pruning_core.compensation.kernel import regress_rows
from pruning_core.compensation.regression import Rectified, Solution, regress
from pruning_core.compensation.rows import Rows
from pruning_core.observe.gram import Gram

GROUPS, INPUTS, OUTPUTS = 2, 12, 3


def problem(rows: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x, y, and the weight and constant to start at; the answers have a constant that these do not know."""
    rng = torch.Generator().manual_seed(seed)
    x = torch.randn(GROUPS, rows, INPUTS, generator=rng) + 0.5
    true = torch.randn(GROUPS, INPUTS, OUTPUTS, generator=rng)
    y = x @ true + 2 + 0.1 * torch.randn(GROUPS, rows, OUTPUTS, generator=rng)
    return x, y, true + 0.3 * torch.randn(true.shape, generator=rng), torch.zeros(GROUPS, 1, OUTPUTS)


def solved(rows: int, *, whole: bool, relu: bool, constant: bool, at_once: int | None = None) -> Solution:
    x, y, weight, start = problem(rows)
    found = Rows(GROUPS, torch.linspace(0.5, 2, GROUPS * OUTPUTS), relu=relu, whole=whole)
    for part in range(0, rows, at_once or rows):
        some = slice(part, part + (at_once or rows))
        found.add(x[:, some], y[:, some], torch.full((GROUPS, 1, OUTPUTS), -0.5))
    solution = found.solve(weight, start if constant else None)
    assert solution is not None
    return solution


@pytest.mark.parametrize("relu", [False, True], ids=["plain", "relu"])
@pytest.mark.parametrize("constant", [False, True], ids=["no-constant", "constant"])
@pytest.mark.parametrize("rows", [15, 80], ids=["fewer-rows", "more-rows"])
def test_rows_and_inputs_give_one_solution(rows: int, constant: bool, relu: bool) -> None:
    primal = solved(rows, whole=False, relu=relu, constant=constant)
    dual = solved(rows, whole=True, relu=relu, constant=constant)
    assert dual.ridge == primal.ridge
    assert not math.isinf(dual.ridge)
    torch.testing.assert_close(dual.weight.double(), primal.weight.double(), rtol=2e-3, atol=2e-3)
    for name in ("before", "after", "energy"):
        assert getattr(dual, name) == pytest.approx(getattr(primal, name), rel=5e-3, abs=1e-3)


@pytest.mark.parametrize("whole", [False, True], ids=["inputs", "rows"])
def test_the_solution_does_not_depend_on_how_the_rows_come(whole: bool) -> None:
    one, many = (solved(80, whole=whole, relu=True, constant=True, at_once=size) for size in (None, 7))
    torch.testing.assert_close(many.weight, one.weight, rtol=1e-4, atol=1e-4, check_dtype=False)
    assert many.after == pytest.approx(one.after, rel=1e-3)


def test_against_least_squares_of_numpy() -> None:
    """With many rows and hardly any noise the ridge does nothing."""
    x, y, weight, start = problem(400)
    ones = torch.ones(1, 1, OUTPUTS)
    rows = Rectified.of(x, y, ones, torch.zeros(1, 1, OUTPUTS))
    found = regress_rows(rows, rows, weight, start, relu=False)
    for g in range(GROUPS):
        with_one = np.concatenate([x[g].double().numpy(), np.ones((400, 1))], axis=1)
        want = np.linalg.lstsq(with_one, y[g].double().numpy(), rcond=None)[0]
        np.testing.assert_allclose(found.weight[g].numpy(), want, atol=1e-3)


def test_weights_that_cannot_be_bettered_stay() -> None:
    x, _, weight, start = problem(20)
    rows = Rectified.of(x, x @ weight, torch.ones(1, 1, OUTPUTS), torch.zeros(1, 1, OUTPUTS))
    assert math.isinf(regress_rows(rows, rows, weight, start, relu=False).ridge)
    gram = Gram()
    gram.add(x, x @ weight)
    assert regress(gram, gram, weight.double()).after <= 1e-3


def test_the_sums_are_as_they_were_afterwards() -> None:
    """Ridges are put on their diagonal and taken off; a copy would cost hundreds of megabytes."""
    x, y, weight, _ = problem(80)
    gram = Gram()
    gram.add(x, y)
    before = gram.xx.clone()
    for start in (weight.double(), torch.cat([weight, torch.zeros(GROUPS, 1, OUTPUTS)], dim=1).double()):
        assert not math.isinf(regress(gram, gram, start).ridge)
    assert torch.equal(gram.xx, before)


@pytest.mark.parametrize("constant", [False, True], ids=["no-constant", "constant"])
def test_rows_choose_the_ridge_that_their_sums_choose(constant: bool) -> None:
    """Where all answers are far above zero, the ReLU behind them does nothing."""
    x, y, weight, start = problem(40)
    first = torch.cat([weight, start], dim=1).double() if constant else weight.double()
    slope = torch.tensor([0.5, -2.0, 1.0]).view(1, 1, -1)
    rows = Rectified.of(x, y, slope, torch.full((1, 1, OUTPUTS), 1e3))
    learn, check = Gram(), Gram()
    learn.add(x[:, :30], y[:, :30])
    check.add(x[:, 30:], y[:, 30:])
    held = Rectified(x[:, 30:], rows.signed[:, 30:], slope, rows.limit)
    by_sums, by_rows = regress(learn, check, first), regress(learn, [held], first)
    assert by_rows.ridge == by_sums.ridge
    torch.testing.assert_close(by_rows.weight, by_sums.weight)


def test_too_few_rows_say_so() -> None:
    x, y, weight, start = problem(4)
    rows = Rows(GROUPS, torch.ones(GROUPS * OUTPUTS), relu=False, whole=True)
    rows.add(x, y, torch.zeros(GROUPS, 1, OUTPUTS))
    assert rows.solve(weight, start) is None
