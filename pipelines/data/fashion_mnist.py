"""Fashion-MNIST: 70,000 real images of 28 x 28 pixels in ten classes, in the four gzipped IDX files of its makers."""

import gzip
import hashlib
import os
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.dataset import DataRequest, LabelledData
from pipelines.errors import DataError

PACKAGED = Path("/usr/share/datasets/fashion-mnist")
SOURCE = "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion"
FILES = {  # with the SHA-256 of what is inside: the package and the source compress the same content differently
    "train-images-idx3-ubyte.gz": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte.gz": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte.gz": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte.gz": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
INSTALL = "install the Debian package dataset-fashion-mnist, or set data.path to a folder with the four files"
EXPECTED = "images [N, H, W] of one size, and labels [N]"


def fashion_mnist(request: DataRequest) -> LabelledData:
    """60,000 images to learn from, then the 10,000 of its own test split; pixels [N, 1, 28, 28] in 0 .. 1."""
    folder = _folder(request.path)
    images, labels, test_images, test_labels = (read_idx(folder / name) for name in FILES)
    for pixels, classes in ((images, labels), (test_images, test_labels)):
        if pixels.ndim != 3 or classes.shape != pixels.shape[:1] or pixels.shape[1:] != images.shape[1:] or not len(pixels):
            found = f"images {pixels.shape} and labels {classes.shape} do not fit"
            raise DataError(found, f"data set 'fashion-mnist', folder {folder}", f"expected {EXPECTED}; {INSTALL}")
    x = np.concatenate([images, test_images])[:, None].astype(np.float32) / np.float32(255)
    y = np.concatenate([labels, test_labels]).astype(np.int64)
    return LabelledData(request.name, x, y, classes=int(y.max()) + 1, held_out=len(test_labels))


def read_idx(path: Path) -> NDArray[np.uint8]:
    """The array in a gzipped IDX file of unsigned bytes. Raises DataError for anything else."""
    try:
        content = gzip.decompress(path.read_bytes())
    except (OSError, EOFError, zlib.error) as exc:  # gzip.BadGzipFile is an OSError
        raise DataError(f"the file cannot be read: {exc}", str(path), INSTALL) from exc
    axes = content[3] if len(content) > 3 and content[:3] == b"\0\0\x08" else 0  # 0x08: unsigned bytes
    start = 4 + 4 * axes
    shape = tuple(np.frombuffer(content[4:start], ">u4").tolist()) if axes and len(content) >= start else ()
    if not shape or len(content) - start != np.prod(shape, dtype=object):
        raise DataError(f"no IDX file of unsigned bytes, or a broken one ({len(content)} bytes)", str(path), INSTALL)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _folder(path: str | None) -> Path:
    """Where the files lie: in the folder that was named, in the package's, or in the user's cache after a download."""
    if path is not None or PACKAGED.is_dir():
        return PACKAGED if path is None else Path(path)
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "secateur" / "fashion-mnist"
    for name, digest in FILES.items():
        if not (folder / name).exists():
            _download(folder / name, digest)
    return folder


def _download(target: Path, digest: str) -> None:
    """Raises DataError without a network, or when something else than the data set comes back."""
    address = f"{SOURCE}/{target.name}"
    try:
        with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310  a constant https address
            content = answer.read()
        found = hashlib.sha256(gzip.decompress(content)).hexdigest()
    except (OSError, EOFError, zlib.error) as exc:
        raise DataError(f"the data set is not here and cannot be downloaded: {exc}", address, INSTALL) from exc
    if found != digest:
        raise DataError(f"the download has SHA-256 {found}, expected {digest}", address, INSTALL)
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_suffix(".part")
    part.write_bytes(content)
    part.replace(target)
