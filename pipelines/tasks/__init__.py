"""What a model is trained for and judged by. To add one: a class that is a `Task`, and a line in `task_of`."""

from pipelines.data import Data
from pipelines.tasks.classification import Classification
from pipelines.tasks.task import Task


def task_of(data: Data) -> Task:
    """The task that the data set stands for."""
    return Classification(data.classes)


__all__ = ["Classification", "Task", "task_of"]
