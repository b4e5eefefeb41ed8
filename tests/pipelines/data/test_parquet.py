from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipelines.config import Data
from pipelines.data import load_data, some
from pipelines.errors import DataError

N = 30
FRAME = pd.DataFrame({"a": np.arange(N, dtype=np.int32), "b": np.arange(N) / 2, "label": np.arange(N) % 3})


def request(path: Path, **changes: Any) -> Data:
    return Data(name="parquet", path=str(path), **changes)


def write(path: Path, table: Any) -> Path:
    table.to_parquet(path) if isinstance(table, pd.DataFrame) else pq.write_table(table, path)
    return path


def rows(path: Path, **changes: Any) -> dict[tuple[float, ...], Any]:
    """Target by input, over all splits."""
    data = load_data(request(path, **changes))
    return {
        tuple(a.flatten().tolist()): b.tolist()
        for part in (data.train, data.validation, data.test)
        for a, b in zip(*some(part, 100), strict=True)
    }


def test_columns_are_features_and_one_is_the_label(tmp_path: Path) -> None:
    path = write(tmp_path / "d.parquet", FRAME)
    assert rows(path) == {(n, n / 2): n % 3 for n in range(N)}
    assert rows(path, features=["b"]) == {(n / 2,): n % 3 for n in range(N)}
    assert rows(path, features=["label", "a"], label="b") == {(n % 3, n): n / 2 for n in range(N)}
    assert load_data(request(path)).classes == 3


@pytest.mark.parametrize("kind", [pa.list_(pa.float32(), 4), pa.list_(pa.int64()), pa.large_list(pa.float64())], ids=str)
def test_a_column_of_lists_is_one_input(tmp_path: Path, kind: pa.DataType) -> None:
    lists = [[n, n + 1, n + 2, n + 3] for n in range(N)]
    table = pa.table({"pixels": pa.array(lists, kind), "label": [n % 2 for n in range(N)]})
    path = write(tmp_path / "d.parquet", table)
    assert rows(path) == {tuple(x): n % 2 for n, x in enumerate(lists)}
    assert load_data(request(path, shape=[1, 2, 2])).sample_shape == (1, 2, 2)
    batched = pa.concat_tables([table.slice(7), table.slice(0, 7)])  # chunks, and slices that start further in
    assert rows(write(tmp_path / "e.parquet", batched)) == rows(path)


def test_texts_are_classes_and_floats_are_predicted(tmp_path: Path) -> None:
    texts = FRAME.assign(label=[["cat", "ape", "dog"][n % 3] for n in range(N)])
    expected = {(n, n / 2): [1, 0, 2][n % 3] for n in range(N)}
    assert rows(write(tmp_path / "t.parquet", texts)) == expected
    assert rows(write(tmp_path / "c.parquet", texts.astype({"label": "category"}))) == expected
    path = write(tmp_path / "f.parquet", FRAME.assign(label=np.arange(N) * 0.25))
    assert rows(path) == {(n, n / 2): n / 4 for n in range(N)}
    assert load_data(request(path)).classes == 0


def test_a_folder_is_one_set_or_its_own_splits(tmp_path: Path) -> None:
    for name in ("whole", "split"):
        (tmp_path / name).mkdir()
    for n in range(2):
        write(tmp_path / "whole" / f"part-{n}.parquet", FRAME[n::2])
    assert rows(tmp_path / "whole") == {(n, n / 2): n % 3 for n in range(N)}
    write(tmp_path / "split" / "train.parquet", FRAME[:24])
    write(tmp_path / "split" / "test.parquet", FRAME[24:])
    data = load_data(request(tmp_path / "split"))
    assert sorted(some(data.test, 100)[0][:, 0].tolist()) == list(range(24, N))
    assert len(data.train) + len(data.validation) == 24


BAD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no label": (FRAME.drop(columns="label"), {}, "no column 'label'"),
    "misspelt": (FRAME, {"label": "lable"}, r"(?s)no column 'lable'.*did you mean 'label'\?.*data.label"),
    "no feature": (FRAME[["label"]], {}, "no column of features"),
    "misspelt feature": (FRAME, {"features": ["c"]}, "(?s)no column 'c'.*data.features"),
    "label twice": (FRAME, {"features": ["a", "label"]}, "among the features"),
    "empty cells": (FRAME.assign(a=[None, *range(1, N)]), {}, "1 rows are empty"),
    "empty labels": (FRAME.assign(label=[None, *["x"] * (N - 1)]), {}, "1 rows are empty"),
    "texts": (FRAME.assign(a="x"), {}, "(?s)not numbers.*data.features"),
    "infinite": (FRAME.assign(b=np.inf), {}, "no finite numbers"),
    "lists and columns": (pa.table({"a": [[1, 2]] * N, "b": [1] * N, "label": [0] * N}), {}, "must be the only feature"),
    "ragged": (pa.table({"a": [[1]] * 29 + [[1, 2]], "label": [0, 1] * 15}), {}, "1 to 2 entries"),
    "shape": (FRAME, {"shape": [3]}, "2 features cannot be shaped"),
    "classes": (FRAME, {"classes": 2}, "data.classes is 2"),
}


@pytest.mark.parametrize(("table", "changes", "message"), BAD.values(), ids=BAD.keys())
def test_a_table_that_cannot_be_used_is_refused(tmp_path: Path, table: Any, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "d.parquet", table)
    with pytest.raises(DataError, match=message):
        load_data(request(path, **changes))


def test_a_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        load_data(request(tmp_path / "none"))
    path = write(tmp_path / "d.parquet", FRAME)
    for content in (b"", b"text", path.read_bytes()[:-9], path.read_bytes()[:4] + b"x" * 500 + path.read_bytes()[504:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            load_data(request(path))
    with pytest.raises(DataError, match=r"data\.path"):
        load_data(Data(name="parquet"))
    write(tmp_path / "test.parquet", FRAME)
    with pytest.raises(DataError, match=r"no train\.parquet"):
        load_data(request(tmp_path))
