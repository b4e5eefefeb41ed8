"""A labelled data set and its split into train, validation and test."""

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import train_test_split

from pipelines.data.pixels import AS_THEY_ARE, Pixels
from pipelines.data.request import DataRequest
from pipelines.errors import DataError


class Split(Protocol):
    """Some of the samples of a data set, wherever they lie."""

    def __len__(self) -> int:
        """The number of samples."""

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """(inputs [n, ...], targets [n, ...]) of all samples, n <= `size`: in an order drawn from `generator`, or theirs."""


class Samples(Protocol):
    """All samples of a data set, wherever they lie: what is split."""

    @property
    def y(self) -> NDArray[Any]:
        """[N, ...], one target per sample: int64 classes, or float32 numbers."""

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Of one input, as a model sees it."""

    def part(self, chosen: NDArray[np.int64]) -> Split:
        """The samples with these numbers."""

    def update(self, digest: "hashlib._Hash") -> None:
        """Feed all that decides what a model would see: the inputs, the targets, and how they are prepared."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledData:
    """The samples of a data set, before they are split. `classes` 0: the targets are numbers to be predicted.

    `own_validation`, `own_test`: the numbers of the samples that the data set itself keeps for that.
    """

    name: str
    samples: Samples
    classes: int
    own_validation: NDArray[np.int64] | None = None
    own_test: NDArray[np.int64] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ArraySamples:
    """In memory: x [N, ...], y [N, ...]."""

    x: NDArray[Any]
    y: NDArray[Any]
    pixels: Pixels = AS_THEY_ARE

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.x.shape[1:]

    def part(self, chosen: NDArray[np.int64]) -> "ArraySplit":
        return ArraySplit(self.x[chosen], self.y[chosen], self.pixels)

    def update(self, digest: "hashlib._Hash") -> None:
        for array in (self.x, self.y):
            digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)
        if self.pixels != AS_THEY_ARE:
            digest.update(repr(self.pixels).encode())


@dataclass(frozen=True, slots=True, eq=False)
class ArraySplit:
    """In memory: x [N, ...], y [N, ...]. A batch of x is float32, prepared by `pixels`."""

    x: NDArray[Any]
    y: NDArray[Any]
    pixels: Pixels = AS_THEY_ARE

    def __len__(self) -> int:
        return len(self.y)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        x, y = torch.from_numpy(self.x), torch.from_numpy(self.y)
        if generator is None:
            for some_x, some_y in zip(torch.split(x, size), torch.split(y, size), strict=True):
                yield self.pixels(some_x), some_y
            return
        for chosen in torch.split(torch.randperm(len(self), generator=generator), size):
            yield self.pixels(x[chosen]), y[chosen]


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
    classes: int  # 0: the targets are numbers to be predicted
    train: Split
    validation: Split
    test: Split
    digest: str  # of the images, the labels and the split
    sample_shape: tuple[int, ...]  # of one input
    target_shape: tuple[int, ...] = ()  # of one target: () is one class or number, [H, W] one for every pixel


def split_labelled(data: LabelledData, request: DataRequest) -> Data:
    """Stratified: every class has its share in each part. The same request gives the same split. Raises DataError.

    Where the data set brings a validation or test split of its own that one is taken, and the shares that were asked for
    are those of the rest. Targets that are no single class are split without strata.
    """
    y = data.samples.y
    train, validation, test = _parts(data, request)
    digest = hashlib.sha256()
    data.samples.update(digest)
    for chosen in (train, validation, test):
        digest.update(chosen.astype(np.int64).tobytes())
    return Data(
        name=data.name,
        classes=data.classes,
        train=data.samples.part(train),
        validation=data.samples.part(validation),
        test=data.samples.part(test),
        digest=digest.hexdigest()[:16],
        sample_shape=tuple(data.samples.sample_shape),
        target_shape=tuple(y.shape[1:]),
    )


def _parts(data: LabelledData, request: DataRequest) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The numbers of the samples of train, validation and test."""
    y = data.samples.y
    rest = np.arange(len(y))
    for own in (data.own_validation, data.own_test):
        rest = rest if own is None else np.setdiff1d(rest, own, assume_unique=True)
    shares = [
        share for share, own in ((request.validation, data.own_validation), (request.test, data.own_test)) if own is None
    ]
    _check_enough(data, rest, [*shares, 1 - sum(shares)])
    in_classes = data.classes > 0 and y.ndim == 1
    left = 1.0

    def take(share: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        strata = y[rest] if in_classes else None
        kept, taken = train_test_split(rest, test_size=share / left, random_state=request.seed, stratify=strata)
        return kept, taken

    test, validation = data.own_test, data.own_validation
    if test is None:
        rest, test = take(request.test)
        left -= request.test
    if validation is None:
        rest, validation = take(request.validation)
    return rest, validation, test


def _check_enough(data: LabelledData, rest: NDArray[np.int64], parts: list[float]) -> None:
    """Every part must get a sample, of every class where there are classes. Raises DataError."""
    where, y = f"data set {data.name!r}", data.samples.y
    smallest, classes, text = len(rest), 1, f"too few samples to split: {len(rest)}"
    if data.classes > 0 and y.ndim == 1 and len(rest):
        counts = np.bincount(y[rest], minlength=data.classes)
        smallest, classes = int(counts[counts > 0].min()), int((counts > 0).sum())
        text += f" in {classes} classes, {smallest} in the smallest"
    own = [part for part in (data.own_validation, data.own_test) if part is not None]
    if smallest < len(parts) or min(parts) * len(rest) < classes or not all(map(len, own)):
        fix = "give every class at least 3 samples and every part at least one per class"
        raise DataError(text if all(map(len, own)) else "a split of the data set's own is empty", where, fix)


IGNORED = 255  # of labels per pixel: pixels that count nowhere, see `pipelines.tasks.Segmentation`


def classes_of(y: NDArray[Any], request: DataRequest, where: str, fix: str) -> tuple[NDArray[Any], int]:
    """The targets as int64 classes and how many there are, or as float32 numbers and 0. Raises DataError.

    Whole numbers are classes, and `request.classes` says how many where not every class occurs.
    """
    if np.issubdtype(y.dtype, np.floating) and request.classes is None:
        if not np.isfinite(y).all():
            raise DataError("some targets are no finite numbers", where, fix)
        return y.astype(np.float32), 0
    if not np.issubdtype(y.dtype, np.integer) or y.size == 0 or y.min() < 0:
        raise DataError(f"labels must be whole numbers from 0, these are {y.dtype}", where, fix)
    counted = y[y != IGNORED] if y.ndim > 1 else y
    highest = int(counted.max(initial=0))
    if request.classes is not None and highest >= request.classes:
        raise DataError(f"there is a label {highest}, and data.classes is {request.classes}", where, "correct data.classes")
    return y.astype(np.int64), request.classes or highest + 1


Load = Callable[[DataRequest], LabelledData]  # what a data set is: from the `data` section to its samples
