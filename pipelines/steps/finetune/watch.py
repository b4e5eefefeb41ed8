"""What happens beside the learning: progress, checkpoints, the end before the end."""

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl

from pipelines.steps.finetune.checkpoints import Checkpoints
from pipelines.steps.finetune.learner import Learner
from pipelines.steps.finetune.records import Epoch, Stopped

logger = logging.getLogger(__name__)
COST_SHARE = 0.01  # of the time may go into checkpoints at the ends of epochs


@dataclass
class Listeners:
    """Who is told, in the process that began the training; a copy in another process tells nobody."""

    on_epoch: Callable[[Epoch], None] = lambda _: None
    on_batches: Callable[[int, int], None] = lambda _done, _all: None
    should_stop: Callable[[], bool] = lambda: False

    def __reduce__(self) -> tuple[type["Listeners"], tuple[()]]:
        return Listeners, ()


class Watch(pl.Callback):
    def __init__(self, learner: Learner, checkpoints: Checkpoints, listeners: Listeners) -> None:
        self.learner, self.checkpoints, self.listeners = learner, checkpoints, listeners
        self.saved_at, self.save_cost, self.can_save = time.monotonic(), 0.0, True
        self.epoch_is_open = learner.course.position > 0

    def on_train_batch_start(self, *_: Any) -> None:
        self.epoch_is_open = True

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        learner, options = self.learner, self.learner.options
        learner.count_batch()
        course = learner.course
        per_epoch = learner.batches_per_epoch()
        self.listeners.on_batches(course.epoch * per_epoch + course.position, options.epochs * per_epoch)
        if options.minutes and course.elapsed() > 60 * options.minutes:
            course.note(f"the budget of {options.minutes:g} minutes ended it in epoch {course.epoch + 1}")
            course.is_over = trainer.should_stop = True
        is_between = course.position % course.accumulate == 0 and course.position < per_epoch
        if self.listeners.should_stop():
            if is_between:
                self._save(trainer)
            raise Stopped
        if is_between and time.monotonic() - self.saved_at >= 60 * options.checkpoint_minutes:
            self._save(trainer)

    def on_train_epoch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if not self.epoch_is_open:
            return
        epoch = self.learner.close_epoch()
        self.epoch_is_open = False
        self.listeners.on_epoch(epoch)
        patience = self.learner.options.patience
        if patience is not None and self.learner.epochs_without_gain() >= patience:
            self.learner.course.note(f"no gain on validation for {patience} epochs: stopped after epoch {epoch.number}")
            self.learner.course.is_over = trainer.should_stop = True
        since = time.monotonic() - self.saved_at
        if since >= min(self.save_cost / COST_SHARE, 60 * self.learner.options.checkpoint_minutes):
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.world_size > 1:
            self._save(trainer)  # the process that began it takes the result from there

    def _save(self, trainer: pl.Trainer) -> None:
        """A disk that is full costs the checkpoint and not the training."""
        self.learner.look_at_losses()
        began = time.monotonic()
        if trainer.local_rank == 0 and self.can_save:  # of each machine, in its own folder
            try:
                self.checkpoints.save(self.learner.to_state())
            except OSError as exc:
                self.can_save = False
                self.learner.course.note(f"no checkpoint after step {self.learner.course.step}: {exc.strerror or exc}")
                logger.warning("training goes on without checkpoints: %s", exc)
        self.saved_at = time.monotonic()
        self.save_cost = self.saved_at - began
