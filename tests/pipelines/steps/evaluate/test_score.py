import numpy as np
import pytest
import torch

from pipelines.config import Evaluate
from pipelines.data import ArraySplit
from pipelines.steps.evaluate import Evaluation, assess
from pipelines.steps.evaluate.score import score
from pipelines.tasks import Classification, Kept, Regression

OPTIONS = Evaluate(resamples=500)


def answers(right: list[bool]) -> Evaluation:
    """A classifier of two classes whose truth is 0 throughout."""
    logits = torch.tensor([[1.0, 0.0] if r else [0.0, 1.0] for r in right])
    task, target = Classification(2), torch.zeros(len(right), dtype=torch.long)
    metrics = task.metrics()
    metrics.update(logits, target)
    return Evaluation({"accuracy": float(metrics.compute()["accuracy"])}, task.keep(logits, target))


def test_a_drop_that_is_noise_and_one_that_is_not() -> None:
    source = answers([True] * 95 + [False] * 5)
    same = score(Classification(2), source, source, OPTIONS)
    assert (same.drop, same.drop_low, same.drop_high, same.p_value, same.is_real) == (0, 0, 0, 1, False)
    assert (same.agreement, same.kl) == (1, 0)
    noise = score(Classification(2), answers([False] * 3 + [True] * 94 + [False] * 3), source, OPTIONS)
    assert noise.drop == pytest.approx(0.01)
    assert noise.p_value == 1  # 3 lost, 2 gained
    assert not noise.is_real
    assert noise.agreement == pytest.approx(0.95)
    assert noise.drop_low is not None
    assert noise.drop_high is not None
    assert noise.drop_low < 0 < noise.drop_high
    lost = score(Classification(2), answers([False] * 10 + [True] * 85 + [False] * 5), source, OPTIONS)
    assert lost.p_value == pytest.approx(2 / 2**10)
    assert lost.is_real
    assert lost.drop_low is not None
    assert lost.drop_low > 0


def test_worse_is_positive_whichever_way_the_metric_points() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 1)).astype(np.float32)
    split = ArraySplit(x, 2 * x[:, 0])
    right, wrong = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
    for module, weight in ((right, 1.9), (wrong, 1.0)):
        torch.nn.init.constant_(module.weight, weight)
        torch.nn.init.zeros_(module.bias)
    for primary in ("mae", "r2"):
        task = Regression(primary)
        source, own = assess(right, split, task), assess(wrong, split, task)
        result = score(task, own, source, OPTIONS)
        assert result.drop > 0
        assert result.is_real
        assert result.drop_low is not None
        assert result.drop_high is not None
        assert 0 < result.drop_low <= result.drop <= result.drop_high
        assert set(result.metrics) == {"mae", "rmse", "r2"}
        gain = score(task, source, own, OPTIONS)
        assert gain.drop == pytest.approx(-result.drop)
        assert gain.is_real


class Unaveraged(Regression):
    """Its metric is no mean over samples, so only the losses can be tested."""

    def summands(self, kept: Kept) -> None:
        del kept


def test_losses_speak_for_a_drop_only_if_both_point_one_way() -> None:
    target = torch.linspace(-1, 1, 40)[:, None]
    task = Unaveraged("mae")

    def answers(error: float, claimed: float) -> Evaluation:
        return Evaluation({"mae": claimed}, task.keep(target + error, target))

    source = answers(0.1, claimed=0.1)
    worse = score(task, answers(0.3, claimed=0.3), source, OPTIONS)
    assert (worse.is_of_losses, worse.is_real, worse.drop_low) == (True, True, None)
    for claimed in (0.05, 0.1):  # the metric became better, or did not move
        contrary = score(task, answers(0.3, claimed), source, OPTIONS)
        assert contrary.p_value == worse.p_value
        assert not contrary.is_real
    assert not score(Regression("mae"), answers(0.3, 0.3), source, OPTIONS).is_of_losses
