"""The cache: one folder per state of a key or prefix, complete or not there; the least recently used go first.

sets/<id>/data/...         the objects; <id> stands for the place and the listing, so another state is another set
sets/<id>/manifest.json    where they came from, and size, time and SHA-256 of each: what tells a broken file
sets/<id>.partial/...      on its way; becomes sets/<id> in one step
locks/<id>.get, .use       held while a set is fetched, and shared by the processes that read it: those are never removed
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from pipelines.data.download import sha256_of
from pipelines.data.folders import locked
from pipelines.data.s3.fetch import Changed, Fetcher
from pipelines.data.s3.store import Remote, endpoint, listing, open_client, parse, place_of
from pipelines.errors import DataError

RESTARTS = 3  # of a set that changes while it is read
PARTIAL = ".partial"
_in_use: dict[Path, IO[str]] = {}  # shared locks, held until this process ends


@dataclass(frozen=True, slots=True)
class Kept:
    """An object in the cache, as it was when it was checked."""

    name: str
    etag: str
    size: int
    changed: int  # time of change, ns
    sha256: str


@dataclass(frozen=True, slots=True)
class Cache:
    root: Path
    limit: int  # bytes

    def local_copy(self, uri: str) -> Path:
        """The file of that key, or the folder of all below that prefix, as they are in the store now. Raises DataError.

        Objects that are here already are not fetched again. The result stays until this process ends.
        """
        client = open_client()
        try:
            for _ in range(RESTARTS):
                objects = listing(client, uri)
                with contextlib.suppress(Changed):
                    return self._set(client, uri, objects)
        except OSError as exc:
            fix = "see to room and rights there, or set XDG_CACHE_HOME to another place"
            raise DataError(f"the cache cannot be used: {exc}", str(self.root), fix) from exc
        fix = "wait until nobody writes there, then run again"
        raise DataError(f"the objects changed {RESTARTS} times while they were read", place_of(uri), fix)

    def _set(self, client: Any, uri: str, objects: Sequence[Remote]) -> Path:
        """Raises Changed, DataError, OSError."""
        bucket, key = parse(uri)
        identity = json.dumps([endpoint(), bucket, key, *([o.key, o.etag, o.size] for o in objects)])
        folder = self.root / "sets" / hashlib.sha256(identity.encode()).hexdigest()[:32]
        with locked(self._lock(folder, "get")):
            if not is_intact(folder):
                shutil.rmtree(folder, ignore_errors=True)
                self._make_room(sum(o.size for o in objects), folder, uri)
                self._fill(Fetcher(client, bucket), uri, objects, folder)
            self._use(folder)
        is_single = len(objects) == 1 and objects[0].key == key
        return folder / "data" / objects[0].name if is_single else folder / "data"

    def _fill(self, fetcher: Fetcher, uri: str, objects: Sequence[Remote], folder: Path) -> None:
        partial = folder.with_name(folder.name + PARTIAL)
        data = partial / "data"
        data.mkdir(parents=True, exist_ok=True)
        kept = {k.name: k for k in self._taken_over(uri, objects, data, folder)}
        missing = [o for o in objects if o.name not in kept]
        try:
            for remote, sha256 in fetcher.fetch([(o, data / o.name) for o in missing]):
                kept[remote.name] = _kept(remote, data / remote.name, sha256)
        finally:
            _write_manifest(partial, uri, list(kept.values()))
        partial.replace(folder)

    def _taken_over(self, uri: str, objects: Sequence[Remote], data: Path, folder: Path) -> Iterator[Kept]:
        """Objects that an earlier try, or another state of the same place, holds already; the latter as hard links."""
        known = {
            (k.name, k.etag, k.size): (place / "data" / k.name, k)
            for place in folder.parent.iterdir()
            for found, listed in [_manifest(place)]
            if found == uri
            for k in listed
        }
        for remote in objects:
            target = data / remote.name
            if target.exists() and target.stat().st_size == remote.size:
                yield _kept(remote, target, sha256_of(target))
                continue
            path, entry = known.get((remote.name, remote.etag, remote.size), (None, None))
            if path is None or entry is None or not _is_unchanged(path, entry):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):  # gone meanwhile, or a disk without links: it is fetched
                os.link(path, target)
                yield _kept(remote, target, entry.sha256)

    def _make_room(self, needed: int, folder: Path, uri: str) -> None:
        """Remove sets, the least recently used first, until `needed` more bytes fit. Raises DataError."""
        sets = self.root / "sets"
        sets.mkdir(parents=True, exist_ok=True)
        with locked(self.root / "locks" / "room"):
            others = [place for place in sets.iterdir() if place.name.removesuffix(PARTIAL) != folder.name]
            sizes = {place: _bytes_of(place) for place in sorted(others, key=self._last_use)}
            total = needed + sum(sizes.values())
            for place, size in sizes.items():
                if total <= self.limit:
                    break
                if needed <= self.limit and self._remove(place):
                    total -= size
        if total > self.limit:
            used = total - needed
            what = f"{needed:,} bytes do not fit the cache of {self.limit:,}" + (f", {used:,} are in use" if used else "")
            raise DataError(what, f"{place_of(uri)}, cache {self.root}", "raise data.cache_gb")

    def _remove(self, place: Path) -> bool:
        """Unless a process fetches or reads it."""
        with contextlib.ExitStack() as stack:
            for kind in ("get", "use"):
                file = stack.enter_context(self._lock(place, kind).open("a"))
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return False
            shutil.rmtree(place)
        return True

    def _use(self, folder: Path) -> None:
        """Let nobody remove it while this process lives, and remember when it was used."""
        lock = self._lock(folder, "use")
        if lock not in _in_use:
            file = lock.open("a")
            fcntl.flock(file, fcntl.LOCK_SH)
            _in_use[lock] = file
        os.utime(lock)

    def _last_use(self, place: Path) -> float:
        lock = self._lock(place, "use")
        return (lock if lock.exists() else place).stat().st_mtime

    def _lock(self, folder: Path, kind: str) -> Path:
        path = self.root / "locks" / f"{folder.name.removesuffix(PARTIAL)}.{kind}"
        path.parent.mkdir(parents=True, exist_ok=True)
        return path


def is_intact(folder: Path) -> bool:
    """Is every file of the set as it was when it was checked?

    Size and time of change tell; a file with another time is read again and must have the same SHA-256.
    """
    uri, listed = _manifest(folder)
    if uri is None:
        return False
    for entry in listed:
        path = folder / "data" / entry.name
        if not _is_unchanged(path, entry) and not (_size(path) == entry.size and sha256_of(path) == entry.sha256):
            return False
    return True


def _is_unchanged(path: Path, entry: Kept) -> bool:
    return _size(path) == entry.size and path.stat().st_mtime_ns == entry.changed


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _kept(remote: Remote, path: Path, sha256: str) -> Kept:
    return Kept(remote.name, remote.etag, remote.size, path.stat().st_mtime_ns, sha256)


def _manifest(folder: Path) -> tuple[str | None, list[Kept]]:
    try:
        raw = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        return str(raw["uri"]), [Kept(**entry) for entry in raw["objects"]]
    except (OSError, ValueError, TypeError, KeyError):
        return None, []


def _write_manifest(folder: Path, uri: str, kept: Sequence[Kept]) -> None:
    text = json.dumps({"uri": uri, "objects": [asdict(entry) for entry in kept]})
    part = folder / "manifest.part"
    part.write_text(text, encoding="utf-8")
    part.replace(folder / "manifest.json")


def _bytes_of(place: Path) -> int:
    total = 0
    for path in place.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # another process has just renamed it
            total += path.stat().st_size if path.is_file() else 0
    return total
