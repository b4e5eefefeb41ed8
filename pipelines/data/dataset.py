"""A labelled data set in memory, and its split into train, validation and test."""

import hashlib
from dataclasses import dataclass
from typing import Protocol

import numpy as np
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


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    x: NDArray[np.float32]
    y: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.y)


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Train: learned from. Validation: decides what is registered. Test: only reported."""

    name: str
    classes: int
    train: Split
    validation: Split
    test: Split
    digest: str  # of the images, the labels and the split

    @property
    def sample_shape(self) -> tuple[int, ...]:
        return self.train.x.shape[1:]


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
    train_split, validation_split, test_split = (Split(data.x[i], data.y[i]) for i in (train, validation, test))
    return Data(data.name, data.classes, train_split, validation_split, test_split, digest.hexdigest()[:16])
