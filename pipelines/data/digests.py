"""What is in files, remembered: a folder of a million images is read once, not before each run."""

import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pipelines.data.download import sha256_of
from pipelines.data.folders import cache_folder
from pipelines.errors import DataError


def content_digests(root: Path, paths: Sequence[Path], workers: int) -> Iterator[tuple[str, int, str]]:
    """(name below `root`, bytes, SHA-256) of each file, in the order of `paths`.

    A file whose size and time of change are those of the last time is not read again. Raises DataError.
    """
    memory = cache_folder() / "digests" / f"{hashlib.sha256(str(root.absolute()).encode()).hexdigest()[:24]}.json"
    known = _known(memory)

    def digest(path: Path) -> tuple[str, int, int, str]:
        name = path.relative_to(root).as_posix()
        try:
            stat = path.stat()
            if known.get(name, [])[:2] == [stat.st_size, stat.st_mtime_ns]:
                return name, stat.st_size, stat.st_mtime_ns, str(known[name][2])
            return name, stat.st_size, stat.st_mtime_ns, sha256_of(path)
        except OSError as exc:
            raise DataError(f"the file cannot be read: {exc}", str(path), "make it readable, or remove it") from exc

    with ThreadPoolExecutor(workers) as pool:
        found = list(pool.map(digest, paths, chunksize=1))
    fresh: dict[str, list[int | str]] = {name: [size, changed, content] for name, size, changed, content in found}
    if fresh != known:
        _keep(memory, fresh)
    yield from ((name, size, content) for name, size, _, content in found)


def _known(memory: Path) -> dict[str, list[int | str]]:
    try:
        return dict(json.loads(memory.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def _keep(memory: Path, fresh: dict[str, list[int | str]]) -> None:
    with contextlib.suppress(OSError):  # a memory that cannot be written costs time, nothing else
        memory.parent.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=memory.parent)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(fresh, file)
        Path(part).replace(memory)
