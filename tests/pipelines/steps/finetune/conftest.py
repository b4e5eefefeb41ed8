from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.data import Data
from tests.pipelines.steps.finetune.nets import blob_data


@pytest.fixture
def data() -> Data:
    return blob_data()


@pytest.fixture(autouse=True)
def _nothing_is_left_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    folder = tmp_path / "cwd"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield
    assert not list(folder.iterdir())
