import gzip
import hashlib
import importlib
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import Data
from pipelines.data import Split, load_data, some
from pipelines.data.fashion_mnist import FILES, read_idx
from pipelines.errors import DataError
from tests.pipelines.data.conftest import FileServer

MODULE = importlib.import_module("pipelines.data.fashion_mnist")  # the package has a function of that name
TEST_LABELS = "t10k-labels-idx1-ubyte.gz"


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """30 images to learn from and 10 to test, in two classes. The first pixel counts them through."""
    count = np.arange(40, dtype=np.uint8)
    images = np.zeros((40, 3, 5), np.uint8)
    images[:, 0, 0] = count
    images[:, 2, 4] = 255
    labels = count % 2
    for name, array in zip(FILES, (images[:30], labels[:30], images[30:], labels[30:]), strict=True):
        (tmp_path / name).write_bytes(gzip.compress(idx(array)))
    return tmp_path


def request_of(folder: Path | None, **changes: Any) -> Data:
    return Data(name="fashion-mnist", path=None if folder is None else str(folder), **changes)


def numbers(*splits: Split) -> list[int]:
    return sorted(n for split in splits for n in np.rint(some(split, 100)[0][:, 0, 0, 0].numpy() * 255).astype(int).tolist())


def test_its_own_test_split_is_the_test_split_and_validation_comes_off_the_rest(folder: Path) -> None:
    data = load_data(request_of(folder, validation=0.2))
    assert data.sample_shape == (1, 3, 5)
    assert data.classes == 2
    assert numbers(data.test) == list(range(30, 40))
    assert numbers(data.train, data.validation) == list(range(30))
    assert len(data.validation) == 6
    assert data.validation.y.sum() == 3  # every class has its share
    for part in (data.train, data.validation, data.test):
        x, y = (tensor.numpy() for tensor in some(part, 100))
        assert part.x.dtype == np.uint8  # bytes stay bytes until a batch is made
        assert x.dtype == np.float32
        assert x.max() == 1
        assert (np.rint(x[:, 0, 0, 0] * 255) % 2 == y).all()  # each image with its label


def test_the_share_for_tests_has_no_say_and_the_seed_moves_validation_only(folder: Path) -> None:
    first = load_data(request_of(folder))
    assert load_data(request_of(folder, test=0.5)).digest == first.digest
    other = load_data(request_of(folder, seed=1))
    assert other.digest != first.digest
    assert numbers(other.test) == numbers(first.test)


def test_idx_keeps_the_order_of_the_axes(tmp_path: Path) -> None:
    array = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(bytes([0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4]) + bytes(range(24))))
    assert (read_idx(path) == array).all()


NO_IDX = {
    "empty file": b"",
    "no gzip": b"no gzip",
    "empty archive": gzip.compress(b""),
    "archive cut short": gzip.compress(idx(np.zeros(4, np.uint8)))[:-9],
    "too few bytes": gzip.compress(idx(np.zeros(4, np.uint8))[:-1]),
    "too many bytes": gzip.compress(idx(np.zeros(4, np.uint8)) + b"\0"),
    "floats": gzip.compress(idx(np.zeros(4, np.uint8), kind=13)),
    "header cut short": gzip.compress(b"\0\0\x08\x03\0\0"),
    "no axes": gzip.compress(b"\0\0\x08\x00"),
}


@pytest.mark.parametrize("content", NO_IDX.values(), ids=NO_IDX.keys())
def test_a_file_that_is_no_idx_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(content)
    with pytest.raises(DataError, match="dataset-fashion-mnist"):
        read_idx(path)


def test_a_missing_file_names_the_package_and_the_option(folder: Path) -> None:
    (folder / TEST_LABELS).unlink()
    with pytest.raises(DataError, match=r"(?s)t10k-labels.*dataset-fashion-mnist.*data\.path"):
        load_data(request_of(folder))


@pytest.mark.parametrize("array", [np.zeros(9, np.uint8), np.zeros((10, 1), np.uint8), np.zeros(0, np.uint8)])
def test_files_that_do_not_belong_together_are_refused(folder: Path, array: np.ndarray) -> None:
    (folder / TEST_LABELS).write_bytes(gzip.compress(idx(array)))
    with pytest.raises(DataError, match="do not fit"):
        load_data(request_of(folder))


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FileServer) -> FileServer:
    """A machine without the package, and what the makers' server is to it."""
    monkeypatch.setattr(MODULE, "PACKAGED", tmp_path / "nowhere")
    monkeypatch.setattr(MODULE, "SOURCE", server.url)
    return server


def test_without_the_package_it_is_downloaded_once(folder: Path, bare: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    bare.files = {name: (folder / name).read_bytes() for name in FILES}
    digests = {name: hashlib.sha256(gzip.decompress(content)).hexdigest() for name, content in bare.files.items()}
    monkeypatch.setattr(MODULE, "FILES", digests)
    data = load_data(request_of(None))
    assert data.digest == load_data(request_of(None)).digest == load_data(request_of(folder)).digest
    assert len(bare.asked) == len(FILES)


def test_it_comes_from_its_makers_encrypted() -> None:
    assert MODULE.SOURCE.startswith("https://")


def test_without_a_network_the_package_and_the_option_are_named(bare: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipelines.data.download.TRIES", 1)
    bare.close()
    with pytest.raises(DataError, match=r"(?s)cannot be downloaded.*dataset-fashion-mnist.*data\.path"):
        load_data(request_of(None))


@pytest.mark.parametrize("content", [b"<html>", gzip.compress(b"something else", mtime=0)], ids=["page", "other"])
def test_a_download_that_is_something_else_is_not_kept(content: bytes, bare: FileServer, tmp_path: Path) -> None:
    bare.files = dict.fromkeys(FILES, content)
    with pytest.raises(DataError, match=r"SHA-256"):
        load_data(request_of(None))
    assert not list((tmp_path / "user-cache").rglob("*.gz*[!k]"))
