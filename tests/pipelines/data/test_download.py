import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from pipelines.data.download import download
from pipelines.errors import DataError
from tests.pipelines.data.conftest import FileServer

CONTENT = np.random.default_rng(0).integers(0, 256, 100_000, dtype=np.uint8).tobytes()
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def fetch(server: FileServer, folder: Path, sha256: str = SHA256) -> Path:
    return download(f"{server.url}/set.tar.gz", folder / "set.tar.gz", sha256, "get it yourself")


@pytest.fixture
def serving(server: FileServer) -> FileServer:
    server.files = {"set.tar.gz": CONTENT}
    return server


def test_a_file_comes_once(serving: FileServer, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(serving, tmp_path / "new"), range(4)))
    assert paths[0].read_bytes() == CONTENT
    assert serving.asked == [("set.tar.gz", 0)]


def test_a_cut_connection_is_taken_up_where_it_broke(serving: FileServer, tmp_path: Path) -> None:
    serving.cut_after = 40_000
    assert fetch(serving, tmp_path).read_bytes() == CONTENT
    assert serving.asked == [("set.tar.gz", 0), ("set.tar.gz", 40_000), ("set.tar.gz", 80_000)]


def test_a_server_without_ranges_sends_all_again(serving: FileServer, tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz.part").write_bytes(b"of a run before")
    serving.knows_ranges = False
    assert fetch(serving, tmp_path).read_bytes() == CONTENT


def test_all_is_there_but_nobody_had_looked(serving: FileServer, tmp_path: Path) -> None:
    (tmp_path / "set.tar.gz.part").write_bytes(CONTENT)
    assert fetch(serving, tmp_path).read_bytes() == CONTENT


def test_it_gives_up_after_some_tries(serving: FileServer, tmp_path: Path) -> None:
    serving.cut_after = 0
    with pytest.raises(DataError, match=r"(?s)cannot be downloaded.*get it yourself"):
        fetch(serving, tmp_path)
    assert len(serving.asked) == 5
    serving.files.clear()
    with pytest.raises(DataError, match="404"):
        fetch(serving, tmp_path)


def test_another_file_is_refused_and_not_kept(serving: FileServer, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"SHA-256 {SHA256}, expected 00"):
        fetch(serving, tmp_path, "00")
    assert not [path for path in tmp_path.iterdir() if path.suffix in (".gz", ".part")]


def test_a_disk_that_takes_nothing(serving: FileServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DataError, match="cannot be kept"):
        fetch(serving, tmp_path / "file")
