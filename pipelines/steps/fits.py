"""Do a model, a data set and a task belong together?"""

import torch
from torch import nn

from pipelines.data import Data, some
from pipelines.errors import DataError
from pipelines.tasks import Task


def check_fits(module: nn.Module, data: Data, task: Task) -> None:
    """Raises DataError unless the model's answer to these samples can be judged by their targets."""
    kind = f"{data.classes} classes" if data.classes else "numbers to predict"
    where = f"data set {data.name!r}, inputs {list(data.sample_shape)}, {kind}, targets {list(data.target_shape)}"
    x, target = some(data.train, 2)
    module.eval()
    try:
        with torch.no_grad():
            answer = module(x)
    except RuntimeError as exc:
        raise DataError(f"the model cannot take these images: {exc}", where, "name the data the model was made for") from exc
    if problem := task.mismatch(answer, target):
        fix = f"name a model for {type(task).__name__.lower()}, and the data it was made for; or another task"
        raise DataError(problem, where, fix)
