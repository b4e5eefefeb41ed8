"""Calibration data: the batches from which statistics are taken. Nothing is trained on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from pruning_core import tree
from pruning_core.errors import SpecError
from pruning_core.inputs import ExampleInputs

BATCH = 128  # samples per batch where a plain tensor is given
Loss = Callable[[object, object], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One call of the model, and what it should answer where that is known."""

    inputs: ExampleInputs
    target: object = None

    def __len__(self) -> int:
        return samples_in(self.inputs)


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """Unlabelled or labelled batches, in one order, read as often as needed.

    `data` is a tensor [N, ...], or anything that can be iterated over again and yields one batch of inputs at a time (a
    tensor, a tuple of positional inputs, a dict of keyword inputs). With `labelled`, each batch is a pair (inputs,
    target), and `loss(outputs, target)` is a mean over the batch; cross-entropy unless another is given. `samples`
    limits how many are read; the first axis of the first input tensor counts them.
    Raises: SpecError when there are fewer samples than asked for, or none.
    """

    data: object
    samples: int | None = None
    labelled: bool = False
    loss: Loss | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.data, Tensor | Iterable):
            raise SpecError(f"calibration data is a {type(self.data).__name__}", "calibration", _GIVE)
        if isinstance(self.data, Iterator):
            raise SpecError(
                "calibration data can be read only once", "calibration", "pass a list of batches or a DataLoader"
            )
        if self.samples is not None and self.samples < 1:
            raise SpecError(f"samples is {self.samples}", "calibration.samples", "use at least 1")

    @classmethod
    def of(cls, data: object) -> Calibration | None:
        """The calibration set that a caller means: None, one of these, a tensor, or batches of inputs."""
        return data if data is None or isinstance(data, Calibration) else cls(data)

    def __iter__(self) -> Iterator[Batch]:
        """Raises: SpecError when the data ends before `samples`."""
        left = self.samples
        seen = 0
        for batch in self._batches():
            if left is not None and len(batch) > left:
                batch = _first(batch, left)
            seen += len(batch)
            yield batch
            if left is not None:
                left -= len(batch)
                if left == 0:
                    return
        if left or not seen:
            asked = f"{self.samples} samples were asked for, " if self.samples else ""
            raise SpecError(f"{asked}the calibration data holds {seen}", "calibration", "give more data or ask for less")

    def _batches(self) -> Iterator[Batch]:
        if isinstance(self.data, Tensor):
            last_alone = len(self.data) > BATCH and len(self.data) % BATCH == 1  # some models take no sample alone
            ends = [*range(BATCH, len(self.data) - last_alone, BATCH), len(self.data)]
            yield from (Batch(ExampleInputs.of(self.data[a:b])) for a, b in itertools.pairwise([0, *ends]))
            return
        assert isinstance(self.data, Iterable)
        for item in self.data:
            if self.labelled:
                if not isinstance(item, tuple | list) or len(item) != 2:
                    raise SpecError("a labelled batch is no pair of inputs and target", "calibration", _GIVE)
                yield Batch(ExampleInputs.of(item[0]), item[1])
            else:
                yield Batch(ExampleInputs.of(item))

    def loss_of(self, outputs: object, target: object) -> Tensor:
        """Mean loss of a batch. Raises: SpecError without labels."""
        if not self.labelled:
            raise SpecError(
                "labels are needed and there are none", "calibration", "pass Calibration(batches, labelled=True)"
            )
        if self.loss is not None:
            return self.loss(outputs, target)
        logits = next(tree.tensors(outputs))
        assert isinstance(target, Tensor)
        return F.cross_entropy(logits, target)


_GIVE = "pass a tensor [N, ...], a list of batches or a DataLoader; labelled=True for pairs (inputs, target)"


def samples_in(inputs: ExampleInputs) -> int:
    """The first axis of the first tensor that has one."""
    return next((t.shape[0] for t in tree.tensors((inputs.args, inputs.kwargs)) if t.ndim), 1)


def _first(batch: Batch, n: int) -> Batch:
    size = len(batch)

    def cut(t: Tensor) -> Tensor:
        return t[:n] if t.ndim and t.shape[0] == size else t

    target = tree.map_tensors(cut, batch.target) if batch.target is not None else None
    return Batch(batch.inputs.map(cut), target)


def generator(seed: int) -> torch.Generator:
    """A random state of its own, so that nobody else's is touched."""
    return torch.Generator().manual_seed(seed)
