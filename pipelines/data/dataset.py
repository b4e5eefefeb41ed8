"""A labelled data set and its split into train, validation and test."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from pipelines.errors import DataError


class DataRequest(Protocol):
    """What a data set needs to know; the `data` section of the configuration is one."""

    @property
    def name(self) -> str: ...
    @property
    def path(self) -> str | None: ...
    @property
    def validation(self) -> float: ...
    @property
    def test(self) -> float: ...
    @property
    def seed(self) -> int: ...


@dataclass(frozen=True, slots=True, eq=False)
class LabelledData:
    """x [N, ...] float32, y [N] int64 with the classes 0 .. classes - 1."""

    name: str
    x: NDArray[np.float32]
    y: NDArray[np.int64]
    classes: int
    held_out: int = 0  # so many images at the end are the data set's own test split; 0: it has none


class Split(Protocol):
    """Some of the samples of a data set, wherever they lie."""

    def __len__(self) -> int:
        """The number of samples."""

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """(inputs [n, ...], targets [n, ...]) of all samples, n <= `size`: in an order drawn from `generator`, or theirs."""


@dataclass(frozen=True, slots=True, eq=False)
class ArraySplit:
    """In memory: x [N, ...], y [N]."""

    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        x, y = torch.from_numpy(self.x), torch.from_numpy(self.y)
        if generator is None:
            yield from zip(torch.split(x, size), torch.split(y, size), strict=True)
            return
        for chosen in torch.split(torch.randperm(len(self), generator=generator), size):
            yield x[chosen], y[chosen]


def some(split: Split, count: int, generator: torch.Generator | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """The first `count` samples, or as many as there are, in the order of `generator` or their own."""
    parts, found = [], 0
    for x, y in split.batches(min(count, 256), generator):
        parts.append((x[: count - found], y[: count - found]))
        found += len(parts[-1][1])
        if found == count:
            break
    return torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts])


def images_of(split: Split, count: int) -> torch.Tensor:
    """Exactly `count` inputs, [count, ...]: the first ones, over and over where there are too few."""
    x, _ = some(split, count)
    return x.repeat(-(-count // len(x)), *[1] * (x.ndim - 1))[:count]


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Train: learned from. Validation: decides what is registered. Test: only reported."""

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    digest: str  # of the images, the labels and the split
    sample_shape: tuple[int, ...]  # of one input


def split_labelled(data: LabelledData, request: DataRequest) -> Data:
    """Stratified: every class has its share in each part. The same request gives the same split. Raises DataError.

    Where the data set brings a test split of its own that one is taken, and `request.validation` is a share of the rest.
    """
    everything = np.arange(len(data.y))
    own = data.held_out > 0
    rest = everything[: len(data.y) - data.held_out]
    counts = np.bincount(data.y[rest], minlength=data.classes)
    parts: tuple[float, ...] = (request.validation, 1 - request.validation)
    if not own:
        parts = (request.test, request.validation, 1 - request.test - request.validation)
    if min(parts) * len(rest) < data.classes or counts[counts > 0].min() < len(parts):
        raise DataError(
            f"too few images to split: {len(rest)} in {data.classes} classes, {counts.min()} in the smallest",
            f"data set {data.name!r}",
            "give every class at least 3 images and every part at least one per class",
        )
    share, test = request.validation, everything[len(rest) :]
    if not own:
        rest, test = train_test_split(everything, test_size=request.test, random_state=request.seed, stratify=data.y)
        share /= 1 - request.test
    train, validation = train_test_split(rest, test_size=share, random_state=request.seed, stratify=data.y[rest])
    digest = hashlib.sha256()
    for array in (data.x, data.y, train, validation, test):
        digest.update(np.ascontiguousarray(array).tobytes())
    return Data(
        name=data.name,
        classes=data.classes,
        train=ArraySplit(data.x[train], data.y[train]),
        validation=ArraySplit(data.x[validation], data.y[validation]),
        test=ArraySplit(data.x[test], data.y[test]),
        digest=digest.hexdigest()[:16],
        sample_shape=data.x.shape[1:],
    )
