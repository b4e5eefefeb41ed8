"""Calibration batches in pieces that run in little memory, whatever size the caller's batches have."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator

from torch import Tensor

from pruning_core import tree
from pruning_core.calibration import Batch
from pruning_core.trace import Trace, Value

AT_ONCE = 2**25  # bytes that one call of a run reads and makes


def pieces(batches: Iterable[Batch], trace: Trace, limit: int = AT_ONCE) -> Iterator[Batch]:
    """The same samples in the same order, cut so that no call of the trace reads and makes more than `limit` bytes.

    A batch that is small enough stays whole, and a sample always does. Targets are left out; what has no entry per sample
    goes to all pieces. No data is copied.
    """
    per_entry = _bytes_per_entry(trace)
    for batch in batches:
        size = len(batch)
        entries = next((t.numel() for t in tree.tensors((batch.inputs.args, batch.inputs.kwargs)) if t.ndim), 1)
        parts = min(max(math.ceil(per_entry * entries / limit), 1), max(size, 1))
        bounds = [math.ceil(size * k / parts) for k in range(parts + 1)]  # even: some models take no sample alone
        yield from (_part(batch, *ends) for ends in itertools.pairwise(bounds)) if parts > 1 else (Batch(batch.inputs),)


def _part(batch: Batch, start: int, stop: int) -> Batch:
    size = len(batch)

    def cut(t: Tensor) -> Tensor:
        return t[start:stop] if t.ndim and t.shape[0] == size else t

    return Batch(batch.inputs.map(cut))


def _bytes_per_entry(trace: Trace) -> float:
    """Of the call that moves most, per entry of the first input tensor: larger images have larger maps."""
    weights = {value.index for value in trace.tensors.values()}
    most = max(
        (sum(_size(v) for v in {*op.inputs(), *op.outputs()} if v.index not in weights) for op in trace.ops), default=0
    )
    entries = next((math.prod(value.shape) for value in trace.inputs if value.shape), 1)
    return most / max(entries, 1)


def _size(value: Value) -> int:
    return math.prod(value.shape) * value.dtype.itemsize
