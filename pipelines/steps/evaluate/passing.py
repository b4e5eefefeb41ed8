"""One pass of a model over a split."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torchmetrics import MetricCollection

from pipelines.data import Data, Split
from pipelines.steps.finetune.memory import is_out_of_memory
from pipelines.tasks import Kept, Task

BATCH = 256
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All metrics of a task on one split, and what was kept of each sample, in the split's order."""

    metrics: dict[str, float]
    kept: Kept

    def __len__(self) -> int:
        """The number of samples."""
        return len(next(iter(self.kept.values())))


@dataclass(frozen=True, slots=True, eq=False)
class Evaluations:
    validation: Evaluation
    test: Evaluation


def evaluate(module: nn.Module, split: Split, task: Task) -> dict[str, float]:
    """The metrics that are followed while training, by name. Leaves the module in eval mode."""
    return _pass(module, split, task.metrics(), BATCH, lambda _output, _target: None)


def assess(module: nn.Module, split: Split, task: Task, batch_size: int = BATCH) -> Evaluation:
    """All metrics and what their statistics need, from one pass. Leaves the module in eval mode.

    Where the memory is too small for a batch, it is halved once.
    """
    try:
        return _assess(module, split, task, batch_size)
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc) or batch_size == 1:
            raise
        reason = str(exc).partition("\n")[0]
    logger.warning("out of memory: evaluated in batches of %d instead of %d (%s)", batch_size // 2, batch_size, reason)
    return _assess(module, split, task, batch_size // 2)


def _assess(module: nn.Module, split: Split, task: Task, batch_size: int) -> Evaluation:
    parts: list[dict[str, Tensor]] = []
    metrics = _pass(module, split, task.final_metrics(), batch_size, lambda o, t: parts.append(task.keep(o, t)))
    return Evaluation(metrics, {name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def assess_all(module: nn.Module, data: Data, task: Task, batch_size: int = BATCH) -> Evaluations:
    return Evaluations(*(assess(module, split, task, batch_size) for split in (data.validation, data.test)))


def _pass(
    module: nn.Module, split: Split, metrics: MetricCollection, batch_size: int, see: Callable[[Any, Any], None]
) -> dict[str, float]:
    device = next((p.device for p in module.parameters()), torch.device("cpu"))
    module.eval()
    with torch.no_grad():  # what the model's code remembers of a run in inference mode could not be trained with
        for x, y in split.batches(batch_size):
            output = pytree.tree_map_only(Tensor, Tensor.cpu, module(x.to(device)))
            metrics.update(output, y)
            see(output, y)
        return {name: float(value) for name, value in metrics.compute().items()}
