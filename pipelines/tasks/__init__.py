"""What a model is trained for and judged by. To add one: a class that is a `Task`, and a line in `TASKS`."""

from pipelines.tasks.classification import Classification
from pipelines.tasks.named import TASKS, TaskRequest, task_of
from pipelines.tasks.regression import Regression
from pipelines.tasks.segmentation import Segmentation
from pipelines.tasks.task import Kept, Likeness, Task

__all__ = [
    "TASKS",
    "Classification",
    "Kept",
    "Likeness",
    "Regression",
    "Segmentation",
    "Task",
    "TaskRequest",
    "task_of",
]
