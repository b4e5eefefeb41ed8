"""Train a module: the demo's model from nothing, a pruned one to mend it."""

import hashlib
import logging
import signal
import threading
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import nn
from torch.multiprocessing.spawn import ProcessException

from pipelines.data import Data
from pipelines.errors import TrainingError
from pipelines.steps.finetune.checkpoints import Checkpoints
from pipelines.steps.finetune.course import Course, weights_of
from pipelines.steps.finetune.distill import Features, Teacher
from pipelines.steps.finetune.hardware import trainer_arguments
from pipelines.steps.finetune.learner import Learner
from pipelines.steps.finetune.many import told_by
from pipelines.steps.finetune.memory import is_out_of_memory
from pipelines.steps.finetune.options import TrainingOptions
from pipelines.steps.finetune.randomness import own_randomness
from pipelines.steps.finetune.records import Diverged, Epoch, Trained
from pipelines.steps.finetune.watch import Listeners, Watch
from pipelines.tasks import Task

logger = logging.getLogger(__name__)
NO_FEATURES = (
    "nothing was learned from features: no cut group ends in a layer whose outputs could be compared (an exported graph has "
    "no layers; name its class in source.factory)"
)
logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)  # no notes about devices and tips


def finetune(
    module: nn.Module,
    data: Data,
    task: Task,
    options: TrainingOptions,
    folder: Path,
    *,
    teacher: nn.Module | None = None,
    features: Features | None = None,
    on_epoch: Callable[[Epoch], None] = lambda _: None,
    on_batches: Callable[[int, int], None] = lambda _done, _all: None,
    should_stop: Callable[[], bool] = lambda: False,
    callbacks: Sequence[pl.Callback] = (),
) -> Trained:
    """Train `module` in place on the training split and leave it in eval mode on the CPU.

    Checkpoints go to `folder / "checkpoints"`. Where one of the same training is found there, it is gone on with and
    ends as if it had never been interrupted; at the end they are removed. `teacher` is learned from as
    `options.distillation` says, also by its `features` (layer -> its channels that the module has kept).
    `on_batches` is told how many batches are done, and of how many, after each. `callbacks` find the module as
    `pl_module.module`. Of several machines each calls it with the same arguments and gets the same weights.
    The random state of the process is left as it was.
    Raises Stopped soon after `should_stop()` turns true; TrainingError where the loss is no number before one epoch is
    whole. If that comes later, the weights kept until then are the result, and the notes say so.
    """
    if options.epochs == 0:
        return Trained()
    folder.mkdir(parents=True, exist_ok=True)
    fitting = _Fitting(module, data, task, options, folder, Listeners(on_epoch, on_batches, should_stop), callbacks)
    if teacher is not None and (options.distillation.weight > 0 or options.distillation.features > 0):
        fitting.teacher = Teacher(teacher, options.distillation, task.distillation_loss, features or {})
    with own_randomness(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"pytorch_lightning\..*")
        course = fitting.run()
    module.load_state_dict(course.good)
    module.eval()
    if teacher is not None and options.distillation.features > 0 and not features:
        course.note(NO_FEATURES)
        logger.warning("training: %s", NO_FEATURES)
    fitting.checkpoints.clear()
    return Trained(
        curve=tuple(course.curve),
        kept=course.kept,
        batch_size=course.batch_size,
        accumulate=course.accumulate,
        resumed_at=course.resumed_at,
        notes=tuple(course.notes),
    )


@dataclass
class _Fitting:
    """One call of `finetune`: as many trainers as it takes, which are one, or two where the memory was too small."""

    module: nn.Module
    data: Data
    task: Task
    options: TrainingOptions
    folder: Path
    listeners: Listeners
    callbacks: Sequence[pl.Callback]
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        shapes = [(name, tuple(tensor.shape)) for name, tensor in self.module.state_dict().items()]
        self.work = hashlib.sha256(repr((self.options, shapes, self.data.digest)).encode()).hexdigest()
        self.checkpoints = Checkpoints(self.folder / "checkpoints", self.work)

    def run(self) -> Course:
        untrained = weights_of(self.module)
        if self.options.hardware.num_nodes > 1:  # the others know nothing of where this one was
            self.checkpoints.clear()
        course, reason = self._fit(self.checkpoints.load(), Course(self.options.batch_size, self.options.accumulate))
        if not reason:
            return course
        if course.batch_size < max(4, self.options.batch_size):
            raise TrainingError(
                f"out of memory with batches of {course.batch_size}: {reason}",
                f"epoch {course.epoch + 1}, step {course.step}",
                "set finetune.batch_size lower and finetune.accumulate higher",
            )
        self.module.cpu().load_state_dict(untrained)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        course, reason = self._fit(*self._with_half(course, reason))
        if reason:
            raise TrainingError(
                f"out of memory, also with batches of {course.batch_size}: {reason}",
                f"epoch {course.epoch + 1}, step {course.step}",
                "set finetune.batch_size lower and finetune.accumulate higher",
            )
        return course

    def _with_half(self, failed: Course, reason: str) -> tuple[dict[str, Any] | None, Course]:
        """From the last checkpoint between two epochs, or from the beginning. The steps stay what they were."""
        course = Course(failed.batch_size // 2, failed.accumulate * 2)
        saved = self.checkpoints.load(lambda state: state["course"]["position"] == 0)
        course.note(
            f"out of memory: batches of {course.batch_size} instead of {failed.batch_size}, {course.accumulate} a step"
        )
        logger.warning("%s (%s)", course.notes[-1], reason)
        if saved is None:
            self.checkpoints.clear()
        else:
            saved["course"] |= {
                "batch_size": course.batch_size,
                "accumulate": course.accumulate,
                "notes": [*saved["course"]["notes"], *course.notes],
            }
        return saved, course

    def _fit(self, saved: dict[str, Any] | None, course: Course) -> tuple[Course, str]:
        """Train to the end, or to where the memory ran out: the second value says how."""
        if saved is not None:
            course = Course.from_state(saved["course"])
            self.module.load_state_dict(saved["module"])
            logger.info("training goes on at step %d, in epoch %d", course.step, course.epoch + 1)
        if course.epoch >= self.options.epochs or (course.is_over and course.position == 0):
            return course, ""
        began_at, told, resumed_at = course.step, len(course.curve), course.resumed_at
        learner = self._learner(course)
        learner.resumed = saved
        watch = Watch(learner, self.checkpoints, self.listeners)
        trainer = self._trainer(watch)
        try:
            _run(trainer, learner)
        except Diverged as exc:
            _keep_what_is_good(course, exc)
        except (RuntimeError, MemoryError) as exc:
            if not is_out_of_memory(exc):
                raise
            return course, str(exc).partition("\n")[0]
        finally:
            self.module.cpu()
        if trainer.world_size > 1 and course.step == began_at:  # other processes did it
            final = self.checkpoints.load()
            assert final is not None
            course = Course.from_state(final["course"])
            course.resumed_at = resumed_at
            for epoch in course.curve[told:]:
                self.listeners.on_epoch(epoch)
        return course, ""

    def _learner(self, course: Course) -> Learner:
        return Learner(self.module, self.data, self.task, self.options, course, self.teacher, self.work)

    def _trainer(self, watch: Watch) -> pl.Trainer:
        options, course = self.options, watch.learner.course
        return pl.Trainer(
            **trainer_arguments(options.hardware),
            max_epochs=options.epochs - course.epoch,
            accumulate_grad_batches=course.accumulate,
            gradient_clip_val=options.gradient_clip,
            reload_dataloaders_every_n_epochs=1,
            use_distributed_sampler=False,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            default_root_dir=self.folder,
            callbacks=[*self.callbacks, watch],
        )


def _keep_what_is_good(course: Course, exc: Diverged) -> None:
    if not course.kept:
        raise TrainingError(
            f"training diverged: {exc}, before one epoch was whole",
            f"epoch {exc.epoch}, step {exc.step}",
            "lower finetune.learning_rate, set finetune.warmup or finetune.gradient_clip; look for bad inputs in the data",
        ) from exc
    course.note(f"stopped: {exc}; the weights of epoch {course.kept} are kept")
    logger.warning("training %s", course.notes[-1])


def _run(trainer: pl.Trainer, learner: pl.LightningModule) -> None:
    """Lightning answers Ctrl-C with exit status 1 and turns further ones off; here it stays a KeyboardInterrupt."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        trainer.fit(learner)
    except SystemExit as exc:
        raise KeyboardInterrupt from exc
    except ProcessException as exc:
        raise told_by(exc) from exc
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, handler)
