import hashlib
import importlib
import io
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipelines.config import Data
from pipelines.data import Split, load_data, some
from pipelines.errors import DataError
from tests.pipelines.data.conftest import FileServer

MODULE = importlib.import_module("pipelines.data.cifar")
LAYOUTS = {"cifar10": MODULE.CIFAR10, "cifar100": MODULE.CIFAR100}


def record(label: int, number: int, name: str) -> bytes:
    """As the makers describe it: label(s), then 1,024 bytes of red, of green and of blue, row by row."""
    red = bytes([number]) + bytes(1023)
    green = bytes(1024)
    blue = bytes(1023) + b"\xff"
    return (bytes([label]) if name == "cifar10" else bytes([label // 5, label])) + red + green + blue


def files_of(name: str) -> dict[str, bytes]:
    """4 records per training file of cifar10 (20 of cifar100), 8 in the test file, in two classes."""
    layout = LAYOUTS[name]
    per_file = 20 // len(layout.train)
    files = {
        file: b"".join(record(n % 2, n, name) for n in range(place * per_file, (place + 1) * per_file))
        for place, file in enumerate(layout.train)
    }
    return {**files, layout.test: b"".join(record(n % 2, n, name) for n in range(20, 28))}


def archive_of(name: str) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for path, content in files_of(name).items():
            member = tarfile.TarInfo(f"{LAYOUTS[name].folder}/{path}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return file.getvalue()


def numbers(*splits: Split) -> list[int]:
    return sorted(n for split in splits for n in np.rint(some(split, 100)[0][:, 0, 0, 0].numpy() * 255).astype(int).tolist())


def request(name: str, path: Path | None = None, **changes: Any) -> Data:
    return Data(name=name, path=None if path is None else str(path), **changes)


@pytest.mark.parametrize("name", LAYOUTS)
def test_folder_archive_and_download_are_the_same_data(
    name: str, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = LAYOUTS[name]
    folder = tmp_path / "unpacked" / layout.folder
    folder.mkdir(parents=True)
    for file, content in files_of(name).items():
        (folder / file).write_bytes(content)
    archive = tmp_path / "a.tar.gz"
    archive.write_bytes(archive_of(name))
    server.files = {layout.archive: archive.read_bytes()}
    monkeypatch.setattr(MODULE, "SOURCE", server.url)
    known = replace(layout, sha256=hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(MODULE, name.upper(), known)
    places = [folder, folder.parent, archive, None, None]
    data = [load_data(request(name, path)) for path in places]
    assert len({found.digest for found in data}) == 1
    assert len(server.asked) == 1  # the second time it was there
    first = data[0]
    assert (first.classes, first.sample_shape) == (layout.classes, (3, 32, 32))
    assert numbers(first.test) == list(range(20, 28))
    assert numbers(first.train, first.validation) == list(range(20))
    for part in (first.train, first.validation, first.test):
        x, y = (tensor.numpy() for tensor in some(part, 100))
        assert (np.rint(x[:, 0, 0, 0] * 255) % 2 == y).all()
        assert (x[:, 2, 31, 31] == 1).all()  # the last byte: blue, lower right
        assert (x[:, 1] == 0).all()


def test_another_archive_than_the_makers_is_refused(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    server.files = {MODULE.CIFAR10.archive: archive_of("cifar10")}
    monkeypatch.setattr(MODULE, "SOURCE", server.url)
    with pytest.raises(DataError, match=f"expected {MODULE.CIFAR10.sha256}"):
        load_data(request("cifar10"))


TEST = "test_batch.bin"
BROKEN = {
    "a file is missing": (lambda files: files.pop(TEST), TEST),
    "cut short": (lambda files: files.update({TEST: files[TEST][:-1]}), "no whole number of records"),
    "empty": (lambda files: files.update({TEST: b""}), "no whole number of records"),
    "a label too high": (lambda files: files.update({TEST: record(10, 0, "cifar10")}), "a label 10, with 10 classes"),
}


@pytest.mark.parametrize(("harm", "message"), BROKEN.values(), ids=BROKEN.keys())
def test_a_folder_that_cannot_be_used_is_refused(harm: Any, message: str, tmp_path: Path) -> None:
    files = files_of("cifar10")
    harm(files)
    for file, content in files.items():
        (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        load_data(request("cifar10", tmp_path))


@pytest.mark.parametrize("name", ["cut short", "no archive", "another archive", "missing"])
def test_an_archive_that_cannot_be_used_is_refused(name: str, tmp_path: Path) -> None:
    path, content = tmp_path / "a.tar.gz", archive_of("cifar10")
    broken = {"cut short": content[: len(content) // 2], "no archive": b"text", "another archive": archive_of("cifar100")}
    if name in broken:
        path.write_bytes(broken[name])
    with pytest.raises(DataError, match=r"(?s)(cannot be read|has no data_batch_1.bin).*data\.path"):
        load_data(request("cifar10", path))
