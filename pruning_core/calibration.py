"""Calibration data: the batches from which statistics are taken. Nothing is trained on them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
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
    limits how many are read; the first axis of the first input tensor counts them. With a `device`, each batch is moved
    there when it is its turn.
    Raises: SpecError when there are fewer samples than asked for, or none.
    """

    data: object
    samples: int | None = None
    labelled: bool = False
    loss: Loss | None = None
    device: torch.device | None = None

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
    def of(cls, data: object, model: nn.Module) -> Calibration | None:
        """The calibration set that a caller means: None, one of these, a tensor, or batches of inputs.

        Batches go where the model is, unless they say a device of their own or the model is on several.
        """
        if data is None:
            return None
        given = data if isinstance(data, Calibration) else cls(data)
        return given if given.device else replace(given, device=device_of(model))

    def __iter__(self) -> Iterator[Batch]:
        """Raises: SpecError when the data ends before `samples`."""
        left = self.samples
        seen = 0
        for batch in self._batches():
            if left is not None and len(batch) > left:
                batch = _first(batch, left)
            seen += len(batch)
            yield batch if self.device is None else _moved(batch, self.device)
            if left is not None:
                left -= len(batch)
                if left == 0:
                    return
        if left or not seen:
            asked = f"{self.samples} samples were asked for, " if self.samples else ""
            raise SpecError(f"{asked}the calibration data holds {seen}", "calibration", "give more data or ask for less")

    def count(self) -> int:
        """How many samples there are. Reads the data once where it is no tensor and `samples` does not say.

        Raises: SpecError when there are none, or fewer than asked for.
        """
        if isinstance(self.data, Tensor) and len(self.data) >= (self.samples or 1):
            return self.samples or len(self.data)
        return sum(map(len, self))

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


def device_of(model: nn.Module) -> torch.device | None:
    """Where the model is; None where it is on several devices, or has no memory."""
    places = {t.device for t in itertools.chain(model.parameters(), model.buffers())}
    return places.pop() if len(places) == 1 and all(place.type != "meta" for place in places) else None


def samples_in(inputs: ExampleInputs) -> int:
    """The first axis of the first tensor that has one."""
    return next((t.shape[0] for t in tree.tensors((inputs.args, inputs.kwargs)) if t.ndim), 1)


def _moved(batch: Batch, device: torch.device) -> Batch:
    def move(t: Tensor) -> Tensor:
        return t.to(device)

    return Batch(batch.inputs.map(move), tree.map_tensors(move, batch.target) if batch.target is not None else None)


def _first(batch: Batch, n: int) -> Batch:
    size = len(batch)

    def cut(t: Tensor) -> Tensor:
        return t[:n] if t.ndim and t.shape[0] == size else t

    target = tree.map_tensors(cut, batch.target) if batch.target is not None else None
    return Batch(batch.inputs.map(cut), target)


def generator(seed: int) -> torch.Generator:
    """A random state of its own, so that nobody else's is touched."""
    return torch.Generator().manual_seed(seed)
