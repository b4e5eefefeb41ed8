"""A task by the name that a recipe gives it."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from pipelines.data import Data
from pipelines.errors import ConfigError
from pipelines.imports import trusted
from pipelines.names import did_you_mean
from pipelines.tasks.classification import Classification
from pipelines.tasks.regression import Regression
from pipelines.tasks.segmentation import Segmentation
from pipelines.tasks.task import Task


def _of_classes(kind: Callable[..., Task]) -> Callable[..., Task]:
    """What the data set knows, then what the recipe says."""

    def make(data: Data, **kwargs: Any) -> Task:
        if data.classes == 0:
            what = f"the targets of data set {data.name!r} are numbers, not classes"
            raise ConfigError(what, f"task {kind.__name__.lower()!r}", "write `task: regression`, or name other data")
        return kind(**{"classes": data.classes, **kwargs})

    return make


TASKS: Mapping[str, Callable[..., Task]] = {
    "classification": _of_classes(Classification),
    "segmentation": _of_classes(Segmentation),
    "regression": lambda _data, **kwargs: Regression(**kwargs),
}


class TaskRequest(Protocol):
    """The `task` section of the configuration is one."""

    @property
    def name(self) -> str: ...
    @property
    def kwargs(self) -> Mapping[str, Any]: ...


def task_of(data: Data, request: TaskRequest | None = None, trust: Sequence[str] = ()) -> Task:
    """The task of that name; a `module:Class` only from below a trusted import path.

    Without a name: classification, or regression where the targets are numbers.

    Raises ConfigError.
    """
    if request is None:
        return TASKS["classification" if data.classes else "regression"](data)
    if request.name not in TASKS and ":" not in request.name:
        raise ConfigError(f"no task {request.name!r}", "task", did_you_mean(request.name, TASKS))
    try:
        make = partial(TASKS[request.name], data) if request.name in TASKS else _own_class(request.name, trust)
        task = make(**request.kwargs)
    except (TypeError, ValueError) as exc:
        raise ConfigError(f"the task cannot be made: {exc}", f"task {request.name!r}", "correct task.kwargs") from exc
    return _checked(task, request.name)


def _own_class(path: str, trust: Sequence[str]) -> type[Task]:
    found = trusted(path, trust, "source.trust", ConfigError, who="the task")
    if not (isinstance(found, type) and issubclass(found, Task)):
        fix = "name a class of that module that derives from pipelines.tasks.Task"
        raise ConfigError("it is no task", f"task {path!r}", fix)
    return found


def _checked(task: Task, path: str) -> Task:
    """What a class of one's own may have forgotten."""
    for attribute in ("primary", "higher_is_better"):
        if not hasattr(task, attribute):
            raise ConfigError(f"it has no `{attribute}`", f"task {path!r}", "set it in the class")
    for metrics in (task.metrics(), task.final_metrics()):
        if task.primary not in metrics:
            known = ", ".join(str(name) for name in metrics)
            raise ConfigError(
                f"its primary metric {task.primary!r} is none of its metrics", f"task {path!r}", f"they are: {known}"
            )
    return task
