"""A data set of one's own: a NumPy .npz file with `x` [N, ...] and `y` [N]."""

import zipfile

import numpy as np

from pipelines.data.dataset import DataRequest, LabelledData
from pipelines.errors import DataError


def npz(request: DataRequest) -> LabelledData:
    where = f"data set 'npz', file {request.path}"
    layout = "np.savez(file, x=images, y=labels), x [N, ...] numbers, y [N] whole numbers from 0"
    if request.path is None:
        raise DataError("data set 'npz' needs a file", "data.path", f"set data.path; the file is made by {layout}")
    try:
        with open(request.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (OSError, EOFError, ValueError, TypeError, zipfile.BadZipFile) as exc:
        raise DataError(f"the file cannot be read: {exc}", where, f"make it with {layout}") from exc
    if "y" not in arrays:
        raise DataError("the data set has no labels (no array `y`)", where, f"add them: {layout}")
    if "x" not in arrays:
        raise DataError("the data set has no array `x`", where, f"add it: {layout}")
    x, y = arrays["x"], arrays["y"]
    if x.ndim < 2 or y.shape != x.shape[:1] or not np.issubdtype(x.dtype, np.number):
        raise DataError(f"x {x.dtype} {x.shape} and y {y.dtype} {y.shape} do not fit", where, f"expected {layout}")
    if not np.issubdtype(y.dtype, np.integer) or len(y) == 0 or y.min() < 0:
        raise DataError(f"labels must be whole numbers from 0, these are {y.dtype}", where, f"expected {layout}")
    return LabelledData(request.name, x.astype(np.float32), y.astype(np.int64), classes=int(y.max()) + 1)
