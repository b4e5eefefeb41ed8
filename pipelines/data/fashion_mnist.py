"""Fashion-MNIST: 70,000 real images of 28 x 28 pixels in ten classes, in the four gzipped IDX files of its makers."""

import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pipelines.data.dataset import ArraySamples, LabelledData
from pipelines.data.download import download
from pipelines.data.folders import cache_folder
from pipelines.data.pixels import pixels_of
from pipelines.data.request import DataRequest
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
    for values, classes in ((images, labels), (test_images, test_labels)):
        if values.ndim != 3 or classes.shape != values.shape[:1] or values.shape[1:] != images.shape[1:] or not len(values):
            found = f"images {values.shape} and labels {classes.shape} do not fit"
            raise DataError(found, f"data set 'fashion-mnist', folder {folder}", f"expected {EXPECTED}; {INSTALL}")
    x = np.concatenate([images, test_images])[:, None]
    y = np.concatenate([labels, test_labels]).astype(np.int64)
    pixels = pixels_of(request.images, 255.0, x.shape[1:], "data set 'fashion-mnist'")
    test = np.arange(len(labels), len(y))
    return LabelledData(request.name, ArraySamples(x, y, pixels), classes=int(y.max()) + 1, own_test=test)


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
    folder = cache_folder() / "fashion-mnist"
    for name, digest in FILES.items():
        download(f"{SOURCE}/{name}", folder / name, digest, INSTALL, digest_of=_content_digest)
    return folder


def _content_digest(path: Path) -> str:
    try:
        return hashlib.sha256(gzip.decompress(path.read_bytes())).hexdigest()
    except (OSError, EOFError, zlib.error) as exc:
        return f"none ({exc})"
