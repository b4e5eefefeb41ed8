"""A table of one's own: Parquet, with a column of targets and columns of features (pyarrow).

A feature column holds a number, or a list of the same length in every row (then it is the only one, e.g. pixels).
A folder may hold `train.parquet`, `validation.parquet` and `test.parquet`: splits of the set's own.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipelines.data.dataset import ArraySamples, LabelledData, classes_of
from pipelines.data.pixels import pixels_of
from pipelines.data.request import DataRequest
from pipelines.errors import DataError
from pipelines.names import did_you_mean

SPLITS = ("train", "validation", "test")


def parquet(request: DataRequest) -> LabelledData:
    """Features [N, F] float32, or [N, *data.shape]; targets are classes where they are whole numbers or texts.

    Raises DataError for a file, a column or a value that cannot be used.
    """
    where = f"data set 'parquet', {request.path}"
    if request.path is None:
        raise DataError("data set 'parquet' needs a file or folder", "data.path", "set data.path")
    tables = _read(Path(request.path), request, where)
    sizes = np.cumsum([0, *(table.num_rows for table in tables.values())])
    own = {name: np.arange(a, b) for name, a, b in zip(tables, sizes[:-1], sizes[1:], strict=True)}
    try:
        table = pa.concat_tables(tables.values())
    except pa.ArrowInvalid as exc:
        raise DataError(f"the files have not the same columns: {exc}", where, "write them with one schema") from exc
    x = _features(table, request, where)
    y, classes = _targets(table.column(request.label), request, where)
    pixels = pixels_of(request.images, 1.0, x.shape[1:], where)
    return LabelledData(request.name, ArraySamples(x, y, pixels), classes, own.get("validation"), own.get("test"))


def _read(path: Path, request: DataRequest, where: str) -> dict[str, pa.Table]:
    """By split; a single file, or a folder without files of those names, is all `train`."""
    files = {name: path / f"{name}.parquet" for name in SPLITS if (path / f"{name}.parquet").is_file()}
    if path.is_dir() and files and "train" not in files:
        raise DataError("the folder has no train.parquet", where, f"beside {', '.join(files)} put what is learned from")
    tables = {}
    for name, file in (files or {"train": path}).items():
        try:
            schema = pq.read_schema(file) if file.is_file() else pq.ParquetDataset(file).schema
            wanted = _columns(schema.names, request, f"{where}, {file.name}")
            tables[name] = pq.read_table(file, columns=wanted)
        except (OSError, pa.ArrowException) as exc:
            raise DataError(f"the file cannot be read: {exc}", where, "set data.path to a Parquet file or folder") from exc
    return tables


def _columns(names: list[str], request: DataRequest, where: str) -> list[str]:
    features = list(request.features) or [name for name in names if name != request.label]
    for field, name in [("data.label", request.label), *(("data.features", name) for name in features)]:
        if name not in names:
            raise DataError(f"there is no column {name!r}", where, f"{did_you_mean(name, names)} Set {field}")
    if not features:
        raise DataError("there is no column of features", where, f"add some beside {request.label!r}")
    if request.label in features:
        raise DataError(f"the label {request.label!r} is among the features", where, "take it out of data.features")
    return [*features, request.label]


def _features(table: pa.Table, request: DataRequest, where: str) -> NDArray[np.float32]:
    columns = [name for name in table.column_names if name != request.label]
    values = [_values(table.column(name), f"{where}, column {name!r}").astype(np.float32, copy=False) for name in columns]
    if len(values) > 1 and any(value.ndim > 1 for value in values):
        raise DataError("a column of lists must be the only feature", where, "name the one in data.features")
    x = values[0] if values[0].ndim > 1 else np.stack(values, axis=1)
    if not np.isfinite(x).all():
        raise DataError("some features are no finite numbers", where, "fill or drop those rows")
    if not request.shape:
        return x
    if int(np.prod(request.shape)) != x.shape[1]:
        raise DataError(f"{x.shape[1]} features cannot be shaped {list(request.shape)}", where, "correct data.shape")
    return x.reshape(len(x), *request.shape)


def _targets(column: pa.ChunkedArray, request: DataRequest, where: str) -> tuple[NDArray[Any], int]:
    where = f"{where}, column {request.label!r}"
    kind = column.type
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
        column = column.cast(kind)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        _check_filled(column, where)
        names, codes = np.unique(np.asarray(column.to_pylist(), dtype=str), return_inverse=True)
        return classes_of(codes if len(names) else codes.astype(np.int64), request, where, "give every row a label")
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int64())
    return classes_of(_values(column, where), request, where, "write whole numbers from 0, texts, or floats to be predicted")


def _values(column: pa.ChunkedArray, where: str) -> NDArray[Any]:
    """[N], or [N, length] of a column of lists. Raises DataError."""
    _check_filled(column, where)
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        array = column.combine_chunks()
        array = array if isinstance(array, pa.Array) else pa.concat_arrays(array.chunks)
        inner = array.flatten()
        length = len(inner) // max(len(array), 1)
        lengths = np.asarray(array.value_lengths()) if not pa.types.is_fixed_size_list(kind) else np.array([length])
        if len(array) and (lengths != length).any():
            raise DataError(f"the lists have {lengths.min()} to {lengths.max()} entries", where, "give all the same length")
        return _values(pa.chunked_array([inner]), where).reshape(len(array), -1)
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
        raise DataError(f"the column holds {kind}, not numbers", where, "name the columns of numbers in data.features")
    return np.asarray(column.to_numpy())


def _check_filled(column: pa.ChunkedArray, where: str) -> None:
    if column.null_count:
        raise DataError(f"{column.null_count} rows are empty", where, "fill or drop them")
