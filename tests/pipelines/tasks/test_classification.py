import numpy as np
import pytest
import torch
from torch import Tensor

from pipelines.tasks import Classification

TASK = Classification(3)
# truth 0 0 1 2, answered 0 1 1 1
LOGITS = torch.tensor([[2.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 3.0, 0.0], [0.0, 1.0, 0.5]])
TARGET = torch.tensor([0, 0, 1, 2])


def test_confusion_and_the_line_of_each_class() -> None:
    kept = TASK.keep(LOGITS, TARGET)
    assert TASK.confusion(kept).tolist() == [[1, 1, 0], [0, 1, 0], [0, 1, 0]]
    table = TASK.per_class(kept)
    assert table["samples"].tolist() == [2, 1, 1]
    assert table["recall"].tolist() == [0.5, 1, 0]
    assert table["precision"].tolist()[:2] == [1, pytest.approx(1 / 3)]
    assert np.isnan(table["precision"][2])  # never answered
    assert table["f1"].tolist() == [pytest.approx(2 / 3), pytest.approx(2 / 4), 0]


def test_calibration_error_by_hand() -> None:
    """Four answers of confidence 0.8, half of them right: 0.3 too sure."""
    logits = torch.log(torch.tensor([[0.8, 0.1, 0.1]] * 4))
    metrics = TASK.final_metrics()
    metrics.update(logits, torch.tensor([0, 0, 1, 2]))
    assert float(metrics.compute()["calibration_error"]) == pytest.approx(0.3, abs=1e-6)
    assert float(metrics.compute()["accuracy"]) == 0.5


def test_top_five_needs_more_than_five_classes() -> None:
    assert "top5_accuracy" not in TASK.final_metrics()
    metrics = Classification(7).final_metrics()
    metrics.update(torch.arange(7.0).repeat(4, 1), torch.tensor([6, 2, 1, 0]))  # the best five: 6 5 4 3 2
    assert float(metrics.compute()["top5_accuracy"]) == 0.5


def test_likeness_by_hand() -> None:
    """Two samples; the source says 50:50 and the candidate 75:25, once with another order."""
    source = {"logits": torch.log(torch.tensor([[0.6, 0.4], [0.5, 0.5]]))}
    own = {"logits": torch.log(torch.tensor([[0.4, 0.6], [0.75, 0.25]]))}
    likeness = Classification(2).likeness(own, source)
    first = 0.6 * np.log(0.6 / 0.4) + 0.4 * np.log(0.4 / 0.6)
    second = 0.5 * np.log(0.5 / 0.75) + 0.5 * np.log(0.5 / 0.25)
    assert likeness.kl == pytest.approx((first + second) / 2, rel=1e-5)
    assert likeness.agreement == 0.5


def test_summands_give_the_metric() -> None:
    kept = TASK.keep(LOGITS, TARGET)
    metrics = TASK.metrics()
    metrics.update(LOGITS, TARGET)
    assert TASK.primary_of(TASK.summands(kept).mean(axis=0)) == pytest.approx(float(metrics.compute()["accuracy"]))
    torch.testing.assert_close(kept["loss"].mean(), TASK.loss(LOGITS, TARGET))


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (torch.zeros(4, 2), "knows 2 classes, the data set has 3"),
        (torch.zeros(4, 9), "set data.classes to 9"),
        (torch.zeros(4, 3, 2), "not one logit per class"),
        ({"logits": LOGITS}, "a dict, not a tensor"),
    ],
    ids=["few", "many", "axes", "dict"],
)
def test_no_classifier(output: Tensor | dict[str, Tensor], words: str) -> None:
    assert words in str(TASK.mismatch(output, TARGET))
    assert TASK.mismatch(LOGITS, TARGET) is None


def test_small_logits_are_no_probabilities() -> None:
    """All between 0 and 1, which is no softmax: the confidence is far lower than it looks."""
    logits = torch.tensor([[0.9, 0.1, 0.0]] * 4)
    metrics = TASK.final_metrics()
    metrics.update(logits, torch.zeros(4, dtype=torch.int64))
    confidence = float(logits.softmax(dim=1)[0, 0])
    assert float(metrics.compute()["calibration_error"]) == pytest.approx(1 - confidence, abs=1e-6)
