import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.tasks import Segmentation

TASK = Segmentation(3)
TARGET = torch.tensor([[[0, 0], [1, 255]], [[1, 1], [0, 0]]])
ANSWER = torch.tensor([[[0, 1], [1, 2]], [[1, 0], [0, 0]]])


def logits_of(answer: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(answer, 3).movedim(-1, 1).float()


def test_miou_by_hand_and_by_its_summands() -> None:
    """Class 0: 3 of 5 pixels, class 1: 2 of 4; class 2 occurs nowhere, and the pixel 255 counts nowhere."""
    kept = TASK.keep(logits_of(ANSWER), TARGET)
    assert TASK.primary_of(TASK.summands(kept).mean(axis=0)) == pytest.approx((3 / 5 + 2 / 4) / 2)
    metrics = TASK.final_metrics()
    metrics.update(logits_of(ANSWER), TARGET)
    assert float(metrics.compute()["miou"]) == pytest.approx((3 / 5 + 2 / 4) / 2)
    assert float(metrics.compute()["pixel_accuracy"]) == pytest.approx(5 / 7)


@pytest.mark.parametrize("seed", range(3))
def test_summands_give_what_torchmetrics_gives(seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    logits, target = torch.randn(6, 3, 5, 4, generator=rng), torch.randint(0, 3, (6, 5, 4), generator=rng)
    target[torch.rand(target.shape, generator=rng) < 0.2] = 255
    metrics = TASK.metrics()
    metrics.update(logits, target)
    kept = TASK.keep(logits, target)
    assert TASK.primary_of(TASK.summands(kept).mean(axis=0)) == pytest.approx(float(metrics.compute()["miou"]), abs=1e-6)
    sizes = (target != 255).flatten(1).sum(dim=1)
    torch.testing.assert_close((kept["loss"] * sizes).sum() / sizes.sum(), TASK.loss(logits, target))


def test_the_line_of_each_class() -> None:
    table = TASK.per_class(TASK.keep(logits_of(ANSWER), TARGET))
    assert table["pixels"].tolist() == [4, 3, 0]
    assert table["iou"].tolist()[:2] == [3 / 5, 2 / 4]
    assert np.isnan(table["iou"][2])


def test_agreement_counts_pixels_that_count() -> None:
    own, source = TASK.keep(logits_of(ANSWER), TARGET), TASK.keep(logits_of(torch.where(TARGET == 255, 0, TARGET)), TARGET)
    assert TASK.likeness(own, source).agreement == pytest.approx(5 / 7)
    assert TASK.likeness(own, source).kl is None


def test_no_segmentation() -> None:
    assert TASK.mismatch(logits_of(ANSWER), TARGET) is None
    assert TASK.mismatch(torch.zeros(2, 3), torch.zeros(2, dtype=torch.long)) is not None  # a classifier and its labels
    assert "not the logits [3, 2, 2]" in str(TASK.mismatch(torch.zeros(2, 3), TARGET))


def test_a_class_that_is_ignored_counts_in_neither() -> None:
    task, rng = Segmentation(3, ignore=0), torch.Generator().manual_seed(0)
    logits, target = torch.randn(6, 3, 5, 4, generator=rng), torch.randint(0, 3, (6, 5, 4), generator=rng)
    metrics = task.metrics()
    metrics.update(logits, target)
    means = task.summands(task.keep(logits, target)).mean(axis=0)
    assert task.primary_of(means) == pytest.approx(float(metrics.compute()["miou"]), abs=1e-6)
