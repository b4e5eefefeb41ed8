"""How far a training is: everything that changes on its way and is neither a weight nor of the optimizer."""

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from pipelines.steps.finetune.records import Epoch

Weights = dict[str, Tensor]


@dataclass
class Course:
    """`position` counts the batches of the epoch under way, `losses` holds what each of them brought: loss x samples."""

    batch_size: int
    accumulate: int
    epoch: int = 0  # finished
    position: int = 0
    step: int = 0
    samples: int = 0  # of the epoch under way
    losses: list[Tensor] = field(default_factory=list)
    seconds: float = 0.0  # by the processes before this one
    epoch_seconds: float = 0.0  # of those, in the epoch under way
    curve: list[Epoch] = field(default_factory=list)
    kept: int = 0  # number of the epoch that `good` is from; 0: none was whole yet
    good: Weights = field(default_factory=dict)  # the last or the best, on the CPU
    notes: list[str] = field(default_factory=list)
    is_over: bool = False  # ended before the last epoch, by patience or by the clock
    resumed_at: int = 0
    began: float = field(default_factory=time.monotonic)
    epoch_began: float = field(default_factory=time.monotonic)

    def elapsed(self) -> float:
        """Seconds of training, over all processes that took part one after the other."""
        return self.seconds + time.monotonic() - self.began

    def epoch_elapsed(self) -> float:
        return self.epoch_seconds + time.monotonic() - self.epoch_began

    def close_epoch(self, val_metric: float, learning_rate: float) -> Epoch:
        loss = float(torch.stack(self.losses).sum()) / self.samples
        epoch = Epoch(self.epoch + 1, loss, val_metric, learning_rate, self.step, self.epoch_elapsed())
        self.curve.append(epoch)
        self.epoch, self.position, self.samples, self.losses = self.epoch + 1, 0, 0, []
        self.epoch_seconds, self.epoch_began = 0.0, time.monotonic()
        return epoch

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def to_state(self) -> dict[str, Any]:
        """Only numbers, texts, lists and tensors."""
        plain = {name: getattr(self, name) for name in _PLAIN}
        losses = torch.stack(self.losses).cpu() if self.losses else torch.zeros(0)
        return {
            **plain,
            "losses": losses,
            "curve": [asdict(epoch) for epoch in self.curve],
            "good": self.good,
            "notes": list(self.notes),
            "seconds": self.elapsed(),
            "epoch_seconds": self.epoch_elapsed(),
        }

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> "Course":
        return cls(
            **{name: state[name] for name in _PLAIN},
            losses=list(state["losses"]),
            curve=[Epoch(**epoch) for epoch in state["curve"]],
            good=state["good"],
            notes=list(state["notes"]),
            seconds=state["seconds"],
            epoch_seconds=state["epoch_seconds"],
            resumed_at=state["step"],
        )


_PLAIN = ("batch_size", "accumulate", "epoch", "position", "step", "samples", "kept", "is_over")


def weights_of(module: nn.Module) -> Weights:
    """A copy on the CPU."""
    return {name: tensor.detach().to("cpu", copy=True) for name, tensor in module.state_dict().items()}


def are_finite(weights: Weights) -> bool:
    return all(bool(tensor.isfinite().all()) for tensor in weights.values() if tensor.is_floating_point())
