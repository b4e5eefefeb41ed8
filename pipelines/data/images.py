"""Image files, decoded when a batch needs them: JPEG and PNG, by Pillow."""

import hashlib
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from pipelines.data.digests import content_digests
from pipelines.data.pixels import Pixels
from pipelines.data.request import ImagesRequest
from pipelines.errors import DataError

MODES = {1: "L", 3: "RGB"}
log = logging.getLogger(__name__)

Decode = Callable[[Image.Image], Tensor]


@dataclass(frozen=True, slots=True)
class Centre:
    """The shorter side to `resize` pixels, then the `size` x `size` pixels in the middle: what classifiers are tested on."""

    size: int
    resize: int
    channels: int

    def __call__(self, image: Image.Image) -> Tensor:
        """uint8 [C, size, size]"""
        image = image.convert(MODES[self.channels])
        width, height = image.size
        scale = self.resize / min(width, height)
        width, height = max(self.resize, round(width * scale)), max(self.resize, round(height * scale))
        image = image.resize((width, height), Image.Resampling.BILINEAR)
        left, top = (width - self.size) // 2, (height - self.size) // 2
        image = image.crop((left, top, left + self.size, top + self.size))
        array = np.array(image, dtype=np.uint8).reshape(self.size, self.size, self.channels)
        return torch.from_numpy(array).permute(2, 0, 1)


def centre_of(images: ImagesRequest) -> Centre:
    return Centre(images.size, images.resize or images.size, images.channels)


class Broken:
    """The files that did not decode. One record for all splits of a data set; any thread may add to it."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.found: dict[Path, str] = {}
        self._lock = threading.Lock()

    def add(self, path: Path, reason: str) -> None:
        """Remember and name it. Raises DataError when there are more than the limit."""
        with self._lock:
            is_new = path not in self.found
            self.found[path] = reason
            count = len(self.found)
            named = [f"{file}: {why}" for file, why in self.found.items()]
        if count > self.limit:
            raise DataError(
                f"{count} image(s) cannot be decoded, and data.images.skip allows {self.limit}",
                "\n         ".join(named[:10]),
                "mend or remove them, or raise data.images.skip",
            )
        if is_new:
            log.warning("image skipped (%d of %d allowed): %s: %s", count, self.limit, path, reason)


@dataclass(frozen=True, slots=True, eq=False)
class ImageSamples:
    """Image files `paths` with their classes y [N], below `root`."""

    root: Path
    paths: Sequence[Path]
    y: NDArray[Any]
    decode: Decode
    described: str  # the decoding and what follows, for the digest
    pixels: Pixels
    workers: int
    broken: Broken
    sample_shape: tuple[int, ...] = field(default=())

    def part(self, chosen: NDArray[np.int64]) -> "ImageSplit":
        paths = tuple(self.paths[i] for i in chosen)
        return ImageSplit(paths, self.y[chosen], self.decode, self.pixels, self.workers, self.broken)

    def update(self, digest: "hashlib._Hash") -> None:
        """Names, sizes and contents. Contents are read once: their digests are kept with size and time of the file."""
        digest.update(self.described.encode())
        for name, size, content in content_digests(self.root, self.paths, self.workers):
            digest.update(f"{name}\0{size}\0{content}\n".encode())
        digest.update(np.ascontiguousarray(self.y).tobytes())


@dataclass(frozen=True, slots=True, eq=False)
class ImageSplit:
    """Some of the files. A batch is decoded by `workers` threads while the one before is in use.

    An image that does not decode is left out of its batch, so that one may be smaller; never a batch of none.
    """

    paths: Sequence[Path]
    y: NDArray[np.int64]
    decode: Decode
    pixels: Pixels
    workers: int
    broken: Broken

    def __len__(self) -> int:
        return len(self.paths)

    def batches(self, size: int, generator: torch.Generator | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self)) if generator is None else torch.randperm(len(self), generator=generator)
        waiting = iter(torch.split(order, size))
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="decode")
        try:
            ahead = [self._start(pool, chosen) for chosen in islice(waiting, 2)]
            while ahead:
                chosen, futures = ahead.pop(0)
                decoded = [future.result() for future in futures]
                ahead.extend(self._start(pool, following) for following in islice(waiting, 1))
                kept = [n for n, image in enumerate(decoded) if image is not None]
                if kept:
                    images = self._stacked([image for image in decoded if image is not None], chosen[kept])
                    yield self.pixels(images), torch.from_numpy(self.y)[chosen[kept]]
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, chosen: Tensor) -> tuple[Tensor, list[Any]]:
        return chosen, [pool.submit(self._read, self.paths[i]) for i in chosen.tolist()]

    def _read(self, path: Path) -> Tensor | None:
        image = read_image(path, self.decode)
        if isinstance(image, Tensor):
            return image
        self.broken.add(path, image)
        return None

    def _stacked(self, images: Sequence[Tensor], chosen: Tensor) -> Tensor:
        for image, number in zip(images, chosen.tolist(), strict=True):
            if image.shape != images[0].shape:
                shapes = f"{list(image.shape)}, the others {list(images[0].shape)}"
                fix = "let data.images.transform bring all to one size"
                raise DataError(f"an image is {shapes}", str(self.paths[number]), fix)
        return torch.stack(list(images))


def read_image(path: Path, decode: Decode) -> Tensor | str:
    """The decoded image, or why it cannot be."""
    try:
        with Image.open(path, formats=("JPEG", "PNG")) as image:
            image.load()
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as exc:
        return f"{type(exc).__name__}: {exc}".replace(f" {str(path)!r}", "")
    return decode(image)
