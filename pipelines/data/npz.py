"""A data set of one's own: a NumPy .npz file with `x` [N, ...] and `y` [N, ...]."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipelines.data.dataset import ArraySamples, LabelledData, classes_of
from pipelines.data.pixels import pixels_of
from pipelines.data.request import DataRequest
from pipelines.errors import DataError

LAYOUT = (
    "np.savez(file, x=inputs, y=targets), x [N, ...] numbers, y [N] whole numbers from 0, "
    "or [N, H, W] such for every pixel, or [N, ...] floats to be predicted"
)
SPLITS = ("validation", "test")  # x_test and y_test beside x and y are the set's own test split


def npz(request: DataRequest) -> LabelledData:
    """Inputs as float32, as they are in the file; targets are classes if they are whole numbers. Raises DataError."""
    where = f"data set 'npz', file {request.path}"
    if request.path is None:
        raise DataError("data set 'npz' needs a file", "data.path", f"set data.path; the file is made by {LAYOUT}")
    arrays = _read(Path(request.path), where)
    x, y = _pair(arrays, "", where)
    own = {}
    for part in SPLITS:
        if f"x_{part}" in arrays or f"y_{part}" in arrays:
            more_x, more_y = _pair(arrays, f"_{part}", where)
            if more_x.shape[1:] != x.shape[1:] or more_y.shape[1:] != y.shape[1:] or more_y.dtype != y.dtype:
                raise DataError(
                    f"x_{part} and y_{part} have other shapes or types than x and y", where, f"expected {LAYOUT}"
                )
            own[part] = np.arange(len(y), len(y) + len(more_y))
            x, y = np.concatenate([x, more_x]), np.concatenate([y, more_y])
    targets, classes = classes_of(y, request, where, f"expected {LAYOUT}")
    pixels = pixels_of(request.images, 1.0, x.shape[1:], where)
    samples = ArraySamples(x.astype(np.float32, copy=False), targets, pixels)
    return LabelledData(request.name, samples, classes, own.get("validation"), own.get("test"))


def _read(path: Path, where: str) -> dict[str, NDArray[Any]]:
    try:
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            return {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as exc:
        raise DataError(f"the file cannot be read: {exc}", where, f"make it with {LAYOUT}") from exc


def _pair(arrays: dict[str, NDArray[Any]], suffix: str, where: str) -> tuple[NDArray[Any], NDArray[Any]]:
    if f"y{suffix}" not in arrays:
        raise DataError(f"the data set has no labels (no array `y{suffix}`)", where, f"add them: {LAYOUT}")
    if f"x{suffix}" not in arrays:
        raise DataError(f"the data set has no array `x{suffix}`", where, f"add it: {LAYOUT}")
    x, y = arrays[f"x{suffix}"], arrays[f"y{suffix}"]
    if x.ndim < 2 or y.shape[:1] != x.shape[:1] or not np.issubdtype(x.dtype, np.number):
        raise DataError(f"x {x.dtype} {x.shape} and y {y.dtype} {y.shape} do not fit", where, f"expected {LAYOUT}")
    if len(y) == 0:
        raise DataError(f"there are no samples in x{suffix}", where, f"expected {LAYOUT}")
    return x, y
