"""A task of one's own, from the recipe's words to a pruned and judged detector."""

import copy

import pytest
import torch

import pruning_core as pc
from pipelines.config import Evaluate
from pipelines.config import Task as TaskSection
from pipelines.data import ArraySplit, Data
from pipelines.steps.evaluate import assess, evaluate
from pipelines.steps.evaluate.score import score
from pipelines.tasks import Task, task_of
from tests.pipelines.tasks.detection import AveragePrecision, TinyDetector, iou, pictures

SECTION = TaskSection.model_validate({"name": "tests.pipelines.tasks.detection:Detection", "kwargs": {"box_weight": 4}})


@pytest.fixture(scope="module")
def data() -> Data:
    splits = [ArraySplit(*pictures(count, seed)) for seed, count in enumerate((192, 32, 48))]
    return Data("boxes", 1, *splits, digest="d", sample_shape=(1, 16, 16))


@pytest.fixture(scope="module")
def task(data: Data) -> Task:
    return task_of(data, SECTION, trust=["tests.pipelines"])


@pytest.fixture(scope="module")
def detector(data: Data, task: Task) -> TinyDetector:
    torch.manual_seed(0)
    module = TinyDetector()
    optimizer = torch.optim.Adam(module.parameters(), 0.01)
    for epoch in range(25):
        for x, y in data.train.batches(32, torch.Generator().manual_seed(epoch)):
            optimizer.zero_grad()
            task.loss(module(x), y).backward()
            optimizer.step()
    return module.eval()


def test_a_detector_is_pruned_and_judged_by_its_own_task(data: Data, task: Task, detector: TinyDetector) -> None:
    source = assess(detector, data.test, task)
    assert source.metrics["ap50"] > 0.8
    assert evaluate(TinyDetector(), data.test, task)["ap50"] < 0.2  # it learned that from this task's loss
    assert len(source) == len(data.test)
    x, _ = next(iter(data.train.batches(2)))
    pruned = pc.prune(copy.deepcopy(detector), x, pc.PruningSpec(ratio=0.5, min_channels=2, criterion="l2_norm")).model
    result = score(task, assess(pruned, data.test, task), source, Evaluate())
    assert result.drop == pytest.approx(source.metrics["ap50"] - result.value)
    assert result.drop > 0
    assert result.p_value is not None  # of the losses of the samples: this metric is no mean over them
    assert result.is_real
    assert (result.drop_low, result.agreement) == (None, None)


def test_the_loss_of_a_sample_is_that_of_a_batch_of_one(data: Data, task: Task, detector: TinyDetector) -> None:
    x, y = next(iter(data.test.batches(7)))
    with torch.no_grad():
        output = detector(x)
        losses = task.sample_losses(output, y)
        torch.testing.assert_close(losses[3], task.loss(output[3:4], y[3:4]))
        torch.testing.assert_close(losses.mean(), task.loss(output, y))
    assert task.mismatch(output, y) is None
    assert "the loss cannot be taken" in str(task.mismatch(output[..., :3], y))


def test_average_precision_by_hand() -> None:
    """Two pictures with one object each: found, missed twice, found again at the second rank of its picture."""
    square = torch.tensor([0.0, 0.0, 1.0, 1.0])
    half, away = torch.tensor([0.0, 0.0, 1.0, 0.5]), torch.tensor([2.0, 2.0, 3.0, 3.0])
    assert iou(half, square[None]).item() == pytest.approx(0.5)
    assert iou(away, square[None]).item() == 0
    metric = AveragePrecision(0.5)
    objects = torch.cat([square, torch.ones(1)])[None]
    for answers in ([(square, 4.0), (square, 1.0)], [(away, 3.0), (half, 2.0)]):
        metric.update(torch.stack([torch.cat([box, torch.tensor([c])]) for box, c in answers])[None], objects[None])
    assert metric.compute().item() == pytest.approx((1 / 1 + 2 / 3) / 2)  # hit, miss, hit, miss by confidence
