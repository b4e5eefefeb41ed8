"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in the binary layout of their makers: 60,000 colour images of 32 x 32 pixels.

A record is one label byte (CIFAR-100: a coarse one, then the fine one that is used) and 3,072 bytes, channel by channel.
Source: https://www.cs.toronto.edu/~kriz/cifar.html
"""

import tarfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pipelines.data.dataset import ArraySamples, LabelledData
from pipelines.data.download import download
from pipelines.data.folders import cache_folder
from pipelines.data.pixels import pixels_of
from pipelines.data.request import DataRequest
from pipelines.errors import DataError

SOURCE = "https://www.cs.toronto.edu/~kriz"
SHAPE = (3, 32, 32)


@dataclass(frozen=True, slots=True)
class Layout:
    archive: str
    sha256: str  # of the archive
    folder: str  # in it
    train: tuple[str, ...]
    test: str
    label_bytes: int
    classes: int


CIFAR10 = Layout(
    archive="cifar-10-binary.tar.gz",
    sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    folder="cifar-10-batches-bin",
    train=tuple(f"data_batch_{n}.bin" for n in range(1, 6)),
    test="test_batch.bin",
    label_bytes=1,
    classes=10,
)
CIFAR100 = Layout(
    archive="cifar-100-binary.tar.gz",
    sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    folder="cifar-100-binary",
    train=("train.bin",),
    test="test.bin",
    label_bytes=2,
    classes=100,
)


def cifar10(request: DataRequest) -> LabelledData:
    """Pixels [N, 3, 32, 32] in 0 .. 1, ten classes, with the test split of its makers. Raises DataError."""
    return _cifar(request, CIFAR10)


def cifar100(request: DataRequest) -> LabelledData:
    """The same in a hundred (fine) classes. Raises DataError."""
    return _cifar(request, CIFAR100)


def _cifar(request: DataRequest, layout: Layout) -> LabelledData:
    names = (*layout.train, layout.test)
    fix = f"set data.path to {layout.archive} or to the folder with {names[0]} .. {names[-1]}"
    path = Path(request.path) if request.path is not None else _downloaded(layout, fix)
    contents = _in_folder(path, layout, fix) if path.is_dir() else _in_archive(path, names, fix)
    parts = [_records(contents[name], layout, f"{path}: {name}", fix) for name in names]
    x, y = (np.concatenate([part[axis] for part in parts]) for axis in (0, 1))
    test = np.arange(len(y) - len(parts[-1][1]), len(y))
    pixels = pixels_of(request.images, 255.0, SHAPE, f"data set {request.name!r}")
    return LabelledData(request.name, ArraySamples(x, y, pixels), layout.classes, own_test=test)


def _downloaded(layout: Layout, fix: str) -> Path:
    target = cache_folder() / "cifar" / layout.archive
    return download(f"{SOURCE}/{layout.archive}", target, layout.sha256, fix)


def _in_folder(path: Path, layout: Layout, fix: str) -> dict[str, bytes]:
    folder = path / layout.folder if (path / layout.folder).is_dir() else path
    try:
        return {name: (folder / name).read_bytes() for name in (*layout.train, layout.test)}
    except OSError as exc:
        raise DataError(f"the file cannot be read: {exc}", str(folder), fix) from exc


def _in_archive(path: Path, names: tuple[str, ...], fix: str) -> Mapping[str, bytes]:
    """Read where it is: nothing is unpacked onto the disk."""
    found = {}
    try:
        with tarfile.open(path, "r:*") as archive:
            for member in archive:
                name = PurePosixPath(member.name).name
                opened = archive.extractfile(member) if name in names and member.isfile() else None
                if opened is not None:
                    found[name] = opened.read()
    except (OSError, EOFError, tarfile.TarError, zlib.error) as exc:
        raise DataError(f"the archive cannot be read: {exc}", str(path), fix) from exc
    for name in names:
        if name not in found:
            raise DataError(f"the archive has no {name}", str(path), fix)
    return found


def _records(content: bytes, layout: Layout, where: str, fix: str) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images [N, 3, 32, 32] and labels [N] of one file."""
    width = layout.label_bytes + int(np.prod(SHAPE))
    if not content or len(content) % width:
        raise DataError(f"{len(content)} bytes are no whole number of records of {width}", where, fix)
    records = np.frombuffer(content, np.uint8).reshape(-1, width)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    if labels.max() >= layout.classes:
        raise DataError(f"there is a label {labels.max()}, with {layout.classes} classes", where, fix)
    return records[:, layout.label_bytes :].reshape(-1, *SHAPE), labels
