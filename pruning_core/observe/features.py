"""Statistics of feature maps, streamed: memory depends on the widths, not on how many samples are read.

The feature map of a layer is its output, taken on through the BatchNorm and the activation that alone read it. Shape
legend: S samples, C channels, H and W the first and the other spatial axes, T positions of one axis.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pruning_core.calibration import Calibration
from pruning_core.criteria.table import Features
from pruning_core.errors import ModelError
from pruning_core.observe.calls import layer_calls
from pruning_core.observe.follow import Readers, chain
from pruning_core.observe.reading import sample_axes
from pruning_core.observe.tap import Tap, run_tapped
from pruning_core.study import Subject
from pruning_core.trace import Op, real_twin

Axis = tuple[str, int]  # a weight and its output axis

MAX_MOMENTS = 1 << 24  # entries of all second-moment matrices of a model together
MAX_AT_ONCE = 1 << 22  # entries of a feature map that are decomposed at a time


@dataclass(slots=True, eq=False)
class Sums:
    """Running sums over the feature maps of one layer, [C] each; `moments` [C, F, F] of maps that are no images."""

    channels: int
    channel_axis: int  # counted from the end
    sample_axis: int | None
    window: int | None  # None: two or more spatial axes
    entries: int = 0  # per channel
    rows: int = 0
    magnitude: Tensor | None = None
    zeros: Tensor | None = None
    nuclear: Tensor | None = None
    moments: Tensor | None = None

    @property
    def form(self) -> tuple[int | None, ...]:
        return self.channels, self.channel_axis, self.sample_axis, self.window

    def add(self, y: Tensor, samples: int, nuclear: bool) -> None:
        y = self._by_channel(y)
        rest = tuple(k for k in range(y.ndim) if k != 1)
        weight = samples if self.sample_axis is None else 1  # a map that all samples share counts once for each
        self.entries += weight * (y.numel() // y.shape[1])
        self.rows += weight * y.shape[0]
        self.magnitude = _plus(self.magnitude, weight * y.abs().sum(rest, dtype=torch.float64))
        self.zeros = _plus(self.zeros, weight * (y == 0).sum(rest).double())
        if nuclear and bool(self.magnitude.isfinite().all()):
            step = max(MAX_AT_ONCE // y[0].numel(), 1)
            for start in range(0, len(y), step):
                self._add_spectrum(y[start : start + step], weight)

    def _by_channel(self, y: Tensor) -> Tensor:
        """[S, C, ...]"""
        if y.is_complex():
            y = y.abs()
        channel = y.ndim + self.channel_axis
        if self.sample_axis is None or self.sample_axis == channel:
            return y.movedim(channel, 0)[None]
        return y.movedim((self.sample_axis, channel), (0, 1))

    def _add_spectrum(self, y: Tensor, weight: int) -> None:
        y = y if y.dtype == torch.float64 else y.float()
        if self.window is None:
            values = torch.linalg.svdvals(y.flatten(3)).double()  # [S, C, min(H, W)]
            self.nuclear = _plus(self.nuclear, weight * values.sum(dim=(0, 2)))
            return
        rows = y.reshape(*y.shape[:2], -1).transpose(0, 1).double()  # [C, S, T]
        rows = F.pad(rows, (0, -rows.shape[2] % self.window)).reshape(len(rows), -1, self.window)
        self.moments = _plus(self.moments, weight * (rows.transpose(1, 2) @ rows))

    def result(self) -> Features:
        assert self.magnitude is not None
        assert self.zeros is not None
        nuclear = None if self.nuclear is None else self.nuclear / self.rows
        if self.moments is not None:
            nuclear = torch.linalg.eigvalsh(self.moments).clamp_min(0).sqrt().sum(dim=1)
        return Features(self.magnitude / self.entries, self.zeros / self.entries, nuclear)


def _plus(total: Tensor | None, term: Tensor) -> Tensor:
    return term if total is None else total.add_(term)


def observe_features(
    subject: Subject, calibration: Calibration, *, nuclear: bool = False
) -> tuple[dict[Axis, Features], int]:
    """(weight, output axis) -> statistics of its feature map, float64, and the number of samples, from one pass.

    A layer that is called several times has one statistic over all calls. The nuclear norm of maps [H, W] is a mean
    over samples. Without two spatial axes it is that of the slice [samples, positions] of each channel, from its second
    moments; where those of all layers would not fit MAX_MOMENTS entries, positions are taken in windows, each a row.
    Raises: ModelError when the model cannot be run on the data, or answers with NaN.
    """
    jobs = _jobs(subject, nuclear)
    copy = real_twin(subject.model).eval()
    seen = 0
    size = 0  # of the batch that is being read

    def look(op: Op, _args: tuple[Any, ...], call: Callable[[], Any]) -> Any:
        result = call()
        y = result if isinstance(result, Tensor) else result[0]
        sums = jobs[op.index][1]
        if y.numel():
            sums.add(y, size, nuclear)
        return result

    for batch in calibration:
        size = len(batch)
        run_tapped(copy, batch.inputs, Tap(subject.trace, jobs, look))
        seen += size
    return _results(jobs), seen


def _results(jobs: dict[int, tuple[Axis, Sums]]) -> dict[Axis, Features]:
    found: dict[Axis, Features] = {}
    for key, sums in {id(sums): (key, sums) for key, sums in jobs.values()}.values():
        if not sums.entries:
            continue
        features = sums.result()
        if not bool(features.magnitude_C.isfinite().all()):
            raise ModelError(
                "the feature maps hold NaN or infinite values on the calibration data",
                f"parameter {key[0]!r}",
                "look for such values in the data, or use 'l2_norm'",
            )
        found[key] = features
    return found


def _jobs(subject: Subject, nuclear: bool) -> dict[int, tuple[Axis, Sums]]:
    """Call whose result is a finished feature map -> whose it is, and its running sums."""
    readers = Readers(subject.trace)
    ends = [(call, chain(call, readers)[-1]) for call in layer_calls(subject.trace)]
    axes = sample_axes(subject) if nuclear else {}
    shapes = [op.outputs()[0].shape for _, op in ends]
    spatial = [len(shape) - 1 - (axes.get(op.index, 0) is not None) for (_, op), shape in zip(ends, shapes, strict=True)]
    flat = sum(n < 2 for n in spatial)
    by_weight: dict[Axis, Sums] = {}
    found: dict[int, tuple[Axis, Sums]] = {}
    for (call, op), shape, n in zip(ends, shapes, spatial, strict=True):
        sample = axes.get(op.index, 0)
        channels = shape[call.channel_axis]
        positions = math.prod(shape) // max(channels * (1 if sample is None else shape[sample]), 1)
        limit = max(math.isqrt(MAX_MOMENTS // (flat * channels)), 1) if n < 2 else 1
        sums = Sums(channels, call.channel_axis, sample, min(max(positions, 1), limit) if n < 2 else None)
        key = (call.weight, call.out_axis)
        known = by_weight.setdefault(key, sums)
        if known.form == sums.form:
            found[op.index] = (key, known)  # calls on other shapes than the first have no common map
    return found
