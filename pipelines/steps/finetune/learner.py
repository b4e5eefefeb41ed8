"""The part of training that is ours, for PyTorch Lightning to drive: loss, optimizer, validation, and what to resume."""

from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from pipelines.data import Data
from pipelines.errors import TrainingError
from pipelines.steps.finetune import randomness
from pipelines.steps.finetune.batches import Batches, batches_per_epoch
from pipelines.steps.finetune.course import Course, are_finite, weights_of
from pipelines.steps.finetune.distill import Teacher
from pipelines.steps.finetune.options import TrainingOptions
from pipelines.steps.finetune.records import Diverged, Epoch
from pipelines.steps.finetune.schedule import optimizer_of, progress, rate_factor
from pipelines.tasks import Task

VALIDATION_BATCH = 256
LOOK_EVERY = 64  # batches between looks at the losses: on a GPU each look waits for it


class Learner(pl.LightningModule):
    """Learns the task, from the labels and from a teacher where one is given."""

    def __init__(
        self,
        module: nn.Module,
        data: Data,
        task: Task,
        options: TrainingOptions,
        course: Course,
        teacher: Teacher | None,
        work: str = "",  # the same in all processes that train together
    ) -> None:
        super().__init__()
        self.module = module
        self.data, self.task, self.options, self.course = data, task, options, course
        self.teacher, self.work = teacher, work
        self.resumed: dict[str, Any] | None = None  # optimizer, schedule and randomness of a checkpoint, until they are used
        self.looked_at = len(course.losses)

    def batches_per_epoch(self) -> int:
        return batches_per_epoch(len(self.data.train), self.course.batch_size, self.trainer.world_size)

    def total_steps(self) -> int:
        return self.options.epochs * -(-self.batches_per_epoch() // self.course.accumulate)

    def train_dataloader(self) -> Batches:
        """What is left of the epoch; Lightning asks for it before each."""
        course, trainer = self.course, self.trainer
        return Batches(
            self.data.train,
            course.batch_size,
            self.options.seed,
            epoch=course.epoch,
            position=course.position,
            rank=trainer.global_rank,
            ranks=trainer.world_size,
            on_open=self._seed,
            on_start=self._set_randomness,
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        options, steps = self.options, self.total_steps()

        def factor(step: int) -> float:
            done = progress(options, step, steps, self.course.elapsed())
            return rate_factor(options.schedule, options.warmup, done)

        # Lightning clips no gradients of a fused optimizer under mixed precision: it could hold scaled ones
        may_fuse = options.gradient_clip is None or self.trainer.precision == "32-true"
        optimizer = optimizer_of(self.module.parameters(), options, may_fuse)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def setup(self, stage: str) -> None:  # noqa: ARG002  Lightning passes it
        """Raises TrainingError where the machines do not train the same."""
        works = [self.trainer.strategy.broadcast(self.work, src=rank) for rank in range(self.trainer.world_size)]
        if len(set(works)) > 1:
            raise TrainingError(
                "the machines do not train the same: their candidates, options or data differ",
                "finetune.hardware",
                "give the same command on all of them, with the same code and data, each with an empty SECATEUR_HOME",
            )

    def on_train_start(self) -> None:
        if self.teacher is not None:
            self.teacher.to(self.device)
        self.course.losses = [loss.to(self.device) for loss in self.course.losses]
        if self.resumed is not None:
            self.trainer.optimizers[0].load_state_dict(self.resumed["optimizer"])
            self.trainer.lr_scheduler_configs[0].scheduler.load_state_dict(self.resumed["schedule"])

    def on_train_epoch_start(self) -> None:
        self.module.train()

    def training_step(self, batch: tuple[Tensor, Tensor], _number: int) -> Tensor:
        x, y = batch
        if self.teacher is None:
            loss = self.task.loss(self.module(x), y)
        else:
            share = self.teacher.share(self.course.epoch + self.course.position / self.batches_per_epoch())
            loss = self.teacher.teach(self.module, x, lambda output: self.task.loss(output, y), share)
        self.course.losses.append(loss.detach() * len(y))
        self.course.samples += len(y)
        return loss

    def count_batch(self) -> None:
        """After a batch, and after the step of the optimizer where that was due."""
        self.course.position += 1
        ends_epoch = self.course.position == self.batches_per_epoch()
        if self.course.position % self.course.accumulate == 0 or ends_epoch:
            self.course.step += 1
        if ends_epoch or self.course.position % LOOK_EVERY == 0:
            self.look_at_losses()

    def look_at_losses(self) -> None:
        """Raises Diverged at the first loss since the last look that is no finite number."""
        course = self.course
        new = course.losses[self.looked_at :]
        if new and not (finite := torch.stack(new).isfinite()).all():
            position = self.looked_at + int((~finite).nonzero()[0])
            is_whole = course.position == self.batches_per_epoch()  # then a short last group has made a step, too
            taken = -(-course.position // course.accumulate) if is_whole else course.position // course.accumulate
            steps_ago = taken - position // course.accumulate - 1
            raise Diverged("the loss is no finite number", course.epoch + 1, course.step - steps_ago)
        self.looked_at = len(course.losses)

    def close_epoch(self) -> Epoch:
        """Validate and keep the weights if they are the last or the best, as asked. Raises Diverged."""
        course, options = self.course, self.options
        self.look_at_losses()
        metric = float(self.trainer.strategy.broadcast(self.validate()))
        before = [epoch.val_metric for epoch in course.curve]
        epoch = course.close_epoch(metric, float(self.trainer.lr_scheduler_configs[0].scheduler.get_last_lr()[0]))
        self.looked_at = 0
        weights = weights_of(self.module)
        if options.hardware.num_nodes > 1:  # statistics of a BatchNorm are each process's own until the next batch
            weights = self.trainer.strategy.broadcast(weights)
        if not are_finite(weights):
            course.curve.pop()
            raise Diverged("a weight is no finite number", epoch.number, epoch.steps)
        if options.keep == "last" or not before or self.is_better(metric, before):
            course.kept, course.good = epoch.number, weights
        return epoch

    def is_better(self, metric: float, others: list[float]) -> bool:
        return metric > max(others) if self.task.higher_is_better else metric < min(others)

    def epochs_without_gain(self) -> int:
        values = [epoch.val_metric for epoch in self.course.curve]
        best = max(values) if self.task.higher_is_better else min(values)
        return len(values) - 1 - values.index(best)

    @torch.no_grad()
    def validate(self) -> float:
        """The task's primary metric on the validation split, in the precision of the training."""
        metrics = self.task.metrics().to(self.device)
        self.module.eval()
        for x, y in self.data.validation.batches(min(VALIDATION_BATCH, 4 * self.course.batch_size)):
            with self.trainer.precision_plugin.forward_context():
                output = self.module(x.to(self.device))
            metrics.update(output, y.to(self.device))
        return float(metrics.compute()[self.task.primary])

    def to_state(self) -> dict[str, Any]:
        return {
            "module": self.module.state_dict(),
            "optimizer": self.trainer.optimizers[0].state_dict(),
            "schedule": self.trainer.lr_scheduler_configs[0].scheduler.state_dict(),
            "randomness": randomness.state(),
            "course": self.course.to_state(),
        }

    def _seed(self) -> None:
        randomness.seed_all(self.options.seed, self.course.epoch, self.trainer.global_rank)

    def _set_randomness(self) -> None:
        """Before the first batch of an epoch, or the first one after a resume."""
        if self.resumed is not None and self.course.position:
            randomness.restore(self.resumed["randomness"])
        else:
            self._seed()
        self.resumed = None
