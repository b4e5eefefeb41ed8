import numpy as np
import pytest
import torch

from pipelines.tasks import Regression

OUTPUT = torch.tensor([[1.0], [2.0], [5.0]])
TARGET = torch.tensor([1.0, 3.0, 2.0])  # errors 0 -1 3


def test_metrics_by_hand() -> None:
    metrics = Regression().final_metrics()
    metrics.update(OUTPUT[:2], TARGET[:2])
    metrics.update(OUTPUT[2:], TARGET[2:])
    found = {name: float(value) for name, value in metrics.compute().items()}
    assert found == {
        "mae": pytest.approx(4 / 3),
        "rmse": pytest.approx(np.sqrt(10 / 3)),
        "r2": pytest.approx(1 - 10 / 2),  # the targets' squared distances from their mean 2: 1 + 1 + 0
    }


@pytest.mark.parametrize("primary", ["mae", "rmse", "r2"])
@pytest.mark.parametrize("shape", [(9,), (9, 1), (9, 3)], ids=str)
def test_summands_give_what_torchmetrics_gives(primary: str, shape: tuple[int, ...]) -> None:
    rng = torch.Generator().manual_seed(0)
    output, target = torch.randn(shape, generator=rng), torch.randn(shape, generator=rng)
    task = Regression(primary)
    assert task.higher_is_better == (primary == "r2")
    metrics = task.metrics()
    metrics.update(output, target)
    kept = task.keep(output, target)
    means = task.summands(kept).mean(axis=0)
    assert task.primary_of(means) == pytest.approx(float(metrics.compute()[primary]), rel=1e-5)
    torch.testing.assert_close(kept["loss"].mean(), task.loss(output, target))


def test_no_regression() -> None:
    task = Regression()
    assert task.mismatch(OUTPUT, TARGET) is None
    assert "answers 1 numbers per sample; the targets have 2" in str(task.mismatch(OUTPUT, torch.zeros(3, 2)))
    assert "torch.int64" in str(task.mismatch(OUTPUT, TARGET.long()))
    with pytest.raises(ValueError, match="did you mean 'rmse'"):
        Regression("rms")
