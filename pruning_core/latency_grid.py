"""The shapes at which a call is timed: below and above the widths that are asked for, all of them widths a cut can give.

Axes that are made of the same channels grow together (the channels of a grouped convolution and its weight's share of
them, the gates of an LSTM and its hidden state), so they are one direction of the grid.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

GRID = 16  # positions; 4 where there are no more than twice as many

Shapes = tuple[tuple[int, ...], ...]


@dataclass(frozen=True, slots=True)
class Axis:
    """Positions that stay, and what each kept channel of a group brings: (group, positions per channel)."""

    fixed: int
    parts: tuple[tuple[int, float], ...] = ()


class Lots(Protocol):
    """A group that is cut in lots of channels."""

    @property
    def channels(self) -> int: ...

    @property
    def lot(self) -> int: ...


@dataclass(frozen=True, slots=True)
class _Direction:
    """Axes made of the same channels, and the movable positions of the longest: now, and at the next grid points."""

    scales: dict[Axis, Fraction]  # positions of the axis per movable position of the longest
    low: int
    high: int
    share: float  # of `high`


def corners(
    values: Sequence[Sequence[Axis]], counts: NDArray[np.int64], groups: Sequence[Lots]
) -> Iterator[tuple[float, Shapes]]:
    """(weight, shapes of the values) of the grid points round the kept channels `counts`; the weights add up to 1."""
    alike: dict[tuple[tuple[int, Fraction], ...], list[Axis]] = {}
    for axis in dict.fromkeys(axis for value in values for axis in value if axis.parts):
        alike.setdefault(_proportions(axis), []).append(axis)
    directions = [_direction(axes, counts, groups) for axes in alike.values()]
    for ends in itertools.product((False, True), repeat=len(directions)):
        weight, sizes = 1.0, dict[Axis, int]()
        for upper, direction in zip(ends, directions, strict=True):
            weight *= direction.share if upper else 1 - direction.share
            movable = direction.high if upper else direction.low
            sizes |= {axis: axis.fixed + round(scale * movable) for axis, scale in direction.scales.items()}
        if weight > 0:
            yield weight, tuple(tuple(sizes.get(axis, axis.fixed) for axis in value) for value in values)


def _proportions(axis: Axis) -> tuple[tuple[int, Fraction], ...]:
    first = _exact(axis.parts[0][1])
    return tuple((group, _exact(each) / first) for group, each in axis.parts)


def _exact(positions_per_channel: float) -> Fraction:
    return Fraction(positions_per_channel).limit_denominator(1 << 16)


def _direction(axes: Sequence[Axis], counts: NDArray[np.int64], groups: Sequence[Lots]) -> _Direction:
    longest = max(axes, key=lambda axis: axis.parts[0][1])
    each = [(group, _exact(part)) for group, part in longest.parts]
    scales = {axis: _exact(axis.parts[0][1]) / each[0][1] for axis in axes}
    now = sum((part * int(counts[group]) for group, part in each), Fraction())
    full = int(sum((part * groups[group].channels for group, part in each), Fraction()))
    lots = [part * groups[group].lot for group, part in each]
    if any(lot.denominator > 1 for lot in lots):  # channels of unequal lengths: no grid fits them
        return _Direction(scales, round(now), round(now), 1.0)
    least = math.lcm(math.gcd(*(int(lot) for lot in lots)), *(scale.denominator for scale in scales.values()))
    size = int(now)
    step = -(-(GRID if size > 2 * GRID else 4) // least) * least
    low, high = max(size // step * step, min(least, full)), min(max(-(-size // step) * step, least), full)
    return _Direction(scales, low, high, (size - low) / (high - low) if high > low else 1.0)
