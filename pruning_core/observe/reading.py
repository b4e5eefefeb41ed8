"""Read calibration data with a model: nothing of the caller's is written, and what fails is named."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from pruning_core import tree
from pruning_core.calibration import Batch, samples_in
from pruning_core.coupling.rules import has_rule
from pruning_core.errors import ModelError, PruningError
from pruning_core.study import Subject
from pruning_core.trace import meta_twin, real_twin, record
from pruning_core.twin import named_tensors


@contextlib.contextmanager
def blaming_data() -> Iterator[None]:
    """Raises: ModelError when the model cannot be run on the data."""
    try:
        yield
    except PruningError:
        raise
    except Exception as exc:
        raise ModelError(
            f"the model's forward fails on the calibration data: {type(exc).__name__}: {exc}".splitlines()[0],
            "calibration",
            "pass batches that the model accepts, on the model's device",
        ) from exc


def after(batches: Iterable[Batch], count: int) -> Iterator[Batch]:
    """The samples without the first `count`. Targets are left out, and no data is copied."""
    for batch in batches:
        size = len(batch)

        def cut(t: Tensor, size: int = size, start: int = count) -> Tensor:
            return t[start:] if t.ndim and t.shape[0] == size else t

        if count < size:
            yield Batch(batch.inputs.map(cut) if count > 0 else batch.inputs)
        count = max(count - size, 0)


def singles(batch: Batch) -> Iterator[Batch]:
    """The samples of a batch, each as a batch of one; what has no entry per sample goes to all."""
    size = len(batch)
    for i in range(size):

        def cut(t: Tensor, i: int = i) -> Tensor:
            return t[i : i + 1] if t.ndim and t.shape[0] == size else t

        target = batch.target
        one_each = isinstance(target, list | tuple) and len(target) == size and not isinstance(target[0], Tensor)
        yield Batch(batch.inputs.map(cut), target[i : i + 1] if one_each else tree.map_tensors(cut, target))  # type: ignore[index]


def none_alone(batches: Iterable[Batch]) -> Iterator[Batch]:
    """The same samples; one that is a batch alone joins the batch after it, or before it at the end, where shapes allow."""
    waiting: list[Batch] = []
    for batch in batches:
        joined = _joined(waiting[-1], batch) if waiting and len(waiting[-1]) == 1 else None
        if joined is not None:
            waiting[-1] = joined
        else:
            waiting.append(batch)
        if len(waiting) > 2:
            yield waiting.pop(0)
    if len(waiting) == 2 and len(waiting[1]) == 1:
        joined = _joined(*waiting)
        waiting = [joined] if joined is not None else waiting
    yield from waiting


def _joined(one: Batch, other: Batch) -> Batch | None:
    """Targets are left out. None where the shapes of single samples differ."""
    rest: list[Tensor] = []
    other.inputs.map(rest.append)

    def join(t: Tensor) -> Tensor:
        more = rest.pop(0)
        return torch.cat([t, more]) if t.ndim and t.shape[0] == len(one) and more.shape[:1] == (len(other),) else t

    try:
        return Batch(one.inputs.map(join))
    except (RuntimeError, IndexError):
        return None


def sample_axes(subject: Subject) -> dict[int, int | None]:
    """Call -> axis of its first result that grows with the number of samples, found by a run on twice as many.

    Where the model does not run on twice as many, or makes other calls then, the first axis is taken for it.
    """
    count = samples_in(subject.inputs)

    def twice(t: Tensor) -> Tensor:
        return torch.cat([t, t]) if t.ndim and t.shape[0] == count else t

    real = subject.trace.real
    copy = real_twin(subject.model, written=subject.trace.writes.tensors) if real else meta_twin(subject.model)
    given = subject.inputs.map(twice)
    double = record(copy, given, named_tensors(copy), keep_whole=has_rule, real=real, known=subject.trace)
    pairs = list(zip(subject.trace.ops, double.ops, strict=False))
    alike = double.error is None and len(double.ops) == len(subject.trace.ops) and all(a.func is b.func for a, b in pairs)
    if not alike:
        return {op.index: 0 for op in subject.trace.ops}
    found: dict[int, int | None] = {}
    for one, two in pairs:
        if one.outputs():
            shapes = zip(one.outputs()[0].shape, two.outputs()[0].shape, strict=False)
            found[one.index] = next((axis for axis, (a, b) in enumerate(shapes) if a != b), None)
    return found
