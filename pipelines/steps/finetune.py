"""Training, by PyTorch Lightning: the same loop trains the demo's model and mends a pruned one."""

import logging
import math
import signal
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Protocol

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from pipelines.data import Data, Split
from pipelines.steps.evaluate import evaluate
from pipelines.tasks import Task

logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # no notes about devices and tips


class DistillationOptions(Protocol):
    @property
    def weight(self) -> float: ...
    @property
    def temperature(self) -> float: ...


class TrainingOptions(Protocol):
    """The `finetune` section of the configuration is one."""

    @property
    def epochs(self) -> int: ...
    @property
    def learning_rate(self) -> float: ...
    @property
    def batch_size(self) -> int: ...
    @property
    def optimizer(self) -> str: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def seed(self) -> int: ...
    @property
    def distillation(self) -> DistillationOptions: ...


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training split."""

    number: int  # from 1
    train_loss: float  # mean over the images
    val_accuracy: float


class Stopped(Exception):  # noqa: N818  an order, no error
    """Training was asked to stop and did."""


def finetune(
    module: nn.Module,
    data: Data,
    task: Task,
    options: TrainingOptions,
    folder: Path,
    *,
    teacher: nn.Module | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    callbacks: Sequence[pl.Callback] = (),
) -> tuple[Epoch, ...]:
    """Train `module` in place on the training split and leave it in eval mode; the curve is returned.

    The last epoch is kept, so neither validation nor test images choose anything here.
    `folder` takes whatever Lightning wants to write. `callbacks` find the module as `pl_module.module`.
    Raises Stopped soon after `should_stop()` turns true.
    """
    if options.epochs == 0:
        return ()
    batches = ShuffledBatches(data.train, options.batch_size, options.seed)
    training = Training(module, data, task, options, len(batches), teacher, on_epoch, should_stop)
    trainer = pl.Trainer(
        max_epochs=options.epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        callbacks=list(callbacks),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning\..*")
        _fit(trainer, training, batches)
    module.eval()
    return tuple(training.curve)


class ShuffledBatches:
    """Batches of (x, y), in another order each epoch, all fixed by the seed. Unlike a loader, it starts no process."""

    def __init__(self, split: Split, batch_size: int, seed: int) -> None:
        self.split = split
        # a last batch of one image would break batch norm
        self.batches = max(1, math.ceil((len(split) - 1) / batch_size))
        self.batch_size = batch_size
        self.generator = torch.Generator().manual_seed(seed)

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(self.split.batches(self.batch_size, self.generator), self.batches)


class Training(pl.LightningModule):
    """The loss of the task, and the distance to the teacher's answers where one is given."""

    def __init__(
        self,
        module: nn.Module,
        data: Data,
        task: Task,
        options: TrainingOptions,
        steps_per_epoch: int,
        teacher: nn.Module | None,
        on_epoch: Callable[[Epoch], None],
        should_stop: Callable[[], bool],
    ) -> None:
        super().__init__()
        self.module = module
        self.data, self.task, self.options, self.steps_per_epoch = data, task, options, steps_per_epoch
        self.teach = [teacher.eval()] if teacher is not None else []  # in a list: not a part of this module
        self.report_epoch, self.should_stop = on_epoch, should_stop
        self.losses: list[Tensor] = []
        self.curve: list[Epoch] = []

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options, parameters = self.options, self.module.parameters()
        optimizer: torch.optim.Optimizer
        if options.optimizer == "sgd":
            optimizer = torch.optim.SGD(
                parameters, options.learning_rate, momentum=0.9, nesterov=True, weight_decay=options.weight_decay
            )
        else:
            optimizer = torch.optim.AdamW(parameters, options.learning_rate, weight_decay=options.weight_decay)
        steps = options.epochs * self.steps_per_epoch
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_epoch_start(self) -> None:
        self.module.train()

    def training_step(self, batch: tuple[Tensor, Tensor], _number: int) -> Tensor:
        if self.should_stop():
            raise Stopped
        x, y = batch
        output = self.module(x)
        loss = self.task.loss(output, y)
        weight, temperature = self.options.distillation.weight, self.options.distillation.temperature
        if self.teach and weight > 0:
            with torch.no_grad():
                answers = self.teach[0](x)
            loss = (1 - weight) * loss + weight * self.task.distillation_loss(output, answers, temperature)
        self.losses.append(loss.detach() * len(y))
        return loss

    def on_train_epoch_end(self) -> None:
        images = min(len(self.data.train), self.steps_per_epoch * self.options.batch_size)
        loss = float(torch.stack(self.losses).sum()) / images
        accuracy = evaluate(self.module, self.data.validation, self.task)[self.task.primary]
        epoch = Epoch(self.current_epoch + 1, loss, accuracy)
        self.losses.clear()
        self.curve.append(epoch)
        self.report_epoch(epoch)


def _fit(trainer: pl.Trainer, training: pl.LightningModule, batches: ShuffledBatches) -> None:
    """Lightning answers Ctrl-C with exit status 1 and turns further ones off; here it stays a KeyboardInterrupt."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(training, batches)
    except SystemExit as exc:
        raise KeyboardInterrupt from exc
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
