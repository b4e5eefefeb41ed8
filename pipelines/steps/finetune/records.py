"""What training tells, and how it ends early."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Epoch:
    """One pass over the training split, the last one perhaps cut short by the budget of time."""

    number: int  # from 1
    train_loss: float  # mean over the samples
    val_metric: float  # the task's primary metric on the validation split
    learning_rate: float = 0.0  # at the end
    steps: int = 0  # of the optimizer, since the training began
    seconds: float = field(default=0.0, compare=False)  # with validation


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """The whole training, also that part of it that an earlier process did."""

    curve: tuple[Epoch, ...] = ()
    kept: int = 0  # number of the epoch whose weights the module has; 0: those that it came with
    batch_size: int = 0  # samples per forward pass: what was asked for, or half where that did not fit
    accumulate: int = 1  # forward passes per step
    resumed_at: int = 0  # the step that a checkpoint took it up at; 0: from the beginning
    notes: tuple[str, ...] = ()  # what went otherwise than asked


class Stopped(Exception):  # noqa: N818  an order, no error
    """Training was asked to stop and did."""


class Diverged(Exception):  # noqa: N818  handled where it is known what is still good
    """The loss or a weight is no finite number any more."""

    def __init__(self, what: str, epoch: int, step: int) -> None:
        super().__init__(what, epoch, step)
        self.what, self.epoch, self.step = what, epoch, step

    def __str__(self) -> str:
        return f"{self.what} in epoch {self.epoch}, step {self.step}"
