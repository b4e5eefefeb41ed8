import dataclasses

import pytest
from torch import Tensor
from torchmetrics import MeanSquaredError, MetricCollection

from pipelines.config import Data as DataSection
from pipelines.config import Task as TaskSection
from pipelines.data import load_data
from pipelines.errors import ConfigError
from pipelines.tasks import Classification, Regression, Segmentation, Task, task_of
from tests.pipelines.tasks.detection import Detection

DATA = load_data(DataSection())
HERE = "tests.pipelines.tasks.test_named"


class Forgetful(Task):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return output.sum()

    def metrics(self) -> MetricCollection:
        return MetricCollection({"mse": MeanSquaredError()})


class Mistaken(Forgetful):
    primary, higher_is_better = "accuracy", True


def named(name: str, **kwargs: object) -> Task:
    return task_of(DATA, TaskSection(name=name, kwargs=kwargs), trust=["tests.pipelines.tasks"])


def test_targets_that_are_numbers_are_for_regression() -> None:
    numbers = dataclasses.replace(DATA, classes=0)
    assert task_of(numbers) == Regression()
    with pytest.raises(ConfigError, match="task: regression"):
        task_of(numbers, TaskSection(name="segmentation"))
    assert named("segmentation", classes=3) == Segmentation(3)  # labels up to 255 may stand for no class at all


def test_names_and_options() -> None:
    assert task_of(DATA) == named("classification") == Classification(10)
    assert named("segmentation", ignore=0) == Segmentation(10, ignore=0)
    assert named("regression", primary="r2") == Regression("r2")
    own = named("tests.pipelines.tasks.detection:Detection", box_weight=2)
    assert isinstance(own, Detection)
    assert own.box_weight == 2


@pytest.mark.parametrize(
    ("name", "kwargs", "message"),
    [
        ("clasification", {}, "did you mean 'classification'"),
        ("regression", {"primary": "rms"}, "did you mean 'rmse'"),
        ("segmentation", {"clases": 3}, "correct task.kwargs"),
        ("classification", {"primary": "top9_accuracy"}, "'top9_accuracy' is none of its metrics"),
        ("os.path:join", {}, "add 'os.path' to source.trust"),
        (f"{HERE}:Nothing", {}, "cannot be imported"),
        (f"{HERE}:DATA", {}, "no function or class of a trusted module"),
        (
            f"{HERE}:Classification",
            {},
            "no function or class of a trusted module",
        ),  # only imported there
        (f"{HERE}:Forgetful", {}, "it has no `primary`"),
        (f"{HERE}:Mistaken", {}, "'accuracy' is none of its metrics"),
    ],
    ids=lambda value: str(value) if isinstance(value, str) else "",
)
def test_refusals(name: str, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=r"(?s)task.*") as caught:
        named(name, **kwargs)
    assert message in str(caught.value)
