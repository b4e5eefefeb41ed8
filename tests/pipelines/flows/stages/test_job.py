"""Candidates share the data: they are read once, also when many tasks ask at the same time."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from pipelines.config import Data
from pipelines.flows.stages import job


def test_data_are_read_once_and_not_copied(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Any] = []

    def slowly(section: Data) -> Any:
        read.append(section)
        time.sleep(0.1)
        return object()

    monkeypatch.setattr(job, "load_data", slowly)
    job._data_of.cache_clear()
    sections = [Data(name="own.data:loaders", trust=("own",), kwargs={"of": ["no", "hash"]}) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(job.read_data, sections))
    job._data_of.cache_clear()
    assert len({id(data) for data in found}) == 1
    assert read == sections[:1]
