"""Bytes of objects onto the disk: in ranges side by side, each taken up where it broke, all of one version of the object."""

import hashlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from pipelines.data.s3.store import CONNECTIONS, GONE, Remote, code_of, place_of, s3_errors
from pipelines.errors import DataError

RANGE = 8 << 20  # bytes of one request
CHUNK = 1 << 18
TRIES = 5  # in a row that bring nothing new
WHOLE_TRIES = 2  # of an object whose checksum is wrong
PAUSE_S = 0.2  # after a failure, doubled each time
GROUP = 256  # objects under way at a time


class Changed(Exception):  # noqa: N818  no error yet: the listing is read again
    """The object is not the one that was listed."""


@dataclass(frozen=True, slots=True)
class Fetcher:
    """Objects of one bucket."""

    client: Any
    bucket: str
    _stop: threading.Event = field(default_factory=threading.Event)  # set when nobody waits for the rest

    def fetch(self, wanted: Sequence[tuple[Remote, Path]]) -> Iterator[tuple[Remote, str]]:
        """Each object in its file, with its SHA-256. What breaks off stays in `.part` files beside it for the next time.

        A file is there only when all of it came and its checksum was right. Raises Changed, DataError, OSError.
        """
        pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="s3")
        finishers = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="s3-check")  # they wait for the others
        self._stop.clear()
        try:
            for start in range(0, len(wanted), GROUP):
                group = wanted[start : start + GROUP]
                under_way = [(remote, target, self._start(pool, remote, target)) for remote, target in group]
                checked = [
                    (remote, finishers.submit(self._finish, pool, remote, at, ranges)) for remote, at, ranges in under_way
                ]
                yield from ((remote, future.result()) for remote, future in checked)
        finally:
            self._stop.set()
            pool.shutdown(wait=True, cancel_futures=True)
            finishers.shutdown(wait=True, cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, remote: Remote, target: Path) -> list[tuple[Path, Future[None]]]:
        target.parent.mkdir(parents=True, exist_ok=True)
        found = []
        for start in range(0, remote.size, RANGE):
            stop = min(start + RANGE, remote.size)
            part = target.with_name(f"{target.name}.{start}-{stop}.part")
            found.append((part, pool.submit(self._fetch_range, remote, start, stop, part)))
        return found

    def _finish(
        self, pool: ThreadPoolExecutor, remote: Remote, target: Path, ranges: list[tuple[Path, Future[None]]]
    ) -> str:
        """Wait, put the ranges together, check."""
        whole = target.with_name(f"{target.name}.whole.part")
        for _ in range(WHOLE_TRIES):
            for _part, future in ranges:
                future.result()
            sha256 = _join([part for part, _ in ranges], whole)
            is_right = self._is_right(remote, whole)
            if is_right:
                whole.replace(target)
            for part, _future in ranges:
                part.unlink()
            if is_right:
                return sha256
            whole.unlink()
            ranges = self._start(pool, remote, target)
        for _part, future in ranges:
            future.cancel()
        fix = "put the object into the store again"
        raise DataError("what comes from the store does not have its checksum", self._place(remote), fix)

    def _fetch_range(self, remote: Remote, start: int, stop: int, part: Path) -> None:
        """Append to `part` until it holds bytes `start` to `stop`. Raises Changed, DataError."""
        failures = 0
        while (have := part.stat().st_size if part.exists() else 0) < stop - start:
            if self._stop.is_set():
                raise CancelledError
            try:
                with s3_errors(self._uri(remote)):
                    self._append(remote, start + have, stop, part)
            except DataError as exc:
                cause = exc.__cause__
                if isinstance(cause, ClientError) and not _is_passing(cause):
                    if code_of(cause) in GONE | {"PreconditionFailed", "412"}:
                        raise Changed(remote.key) from exc
                    raise
                failures = failures + 1 if not part.exists() or part.stat().st_size == have else 0
                if failures == TRIES:
                    what = f"the connection breaks off again and again; {exc.what}"
                    fix = "run again: what has come is kept, and only the rest is fetched"
                    raise DataError(what, self._place(remote), fix) from exc
                time.sleep(PAUSE_S * 2**failures)

    def _append(self, remote: Remote, first: int, stop: int, part: Path) -> None:
        answer = self.client.get_object(
            Bucket=self.bucket, Key=remote.key, Range=f"bytes={first}-{stop - 1}", IfMatch=remote.etag
        )
        with closing(answer["Body"]) as body, part.open("ab") as file:
            if answer["ETag"] != remote.etag:  # a store that takes no If-Match
                raise Changed(remote.key)
            if answer["ContentLength"] != stop - first:
                what = f"the store sent {answer['ContentLength']} bytes of the {stop - first} that were asked for"
                raise DataError(what, self._place(remote), "use a store that serves ranges")
            for chunk in body.iter_chunks(CHUNK):
                if self._stop.is_set():
                    return
                file.write(chunk)
                file.flush()  # what has come is kept even if this process is killed

    def _is_right(self, remote: Remote, path: Path) -> bool:
        """Has the file the checksum that the store keeps: the MD5, or that of an upload in parts, in the entity tag?

        Where the store encrypts with a key service, or tells no sizes of parts, only the length can be checked.
        """
        if path.stat().st_size != remote.size:
            return False
        match = re.fullmatch(r'"?([0-9a-f]{32})(?:-(\d+))?"?', remote.etag)
        if match is None or (match[2] is None and match[1] == _etag(path, None)):
            return True
        with s3_errors(self._uri(remote)):
            try:
                number = {"PartNumber": 1} if match[2] else {}
                head = self.client.head_object(Bucket=self.bucket, Key=remote.key, IfMatch=remote.etag, **number)
            except ClientError as exc:
                if code_of(exc) in GONE | {"PreconditionFailed", "412"}:
                    raise Changed(remote.key) from exc
                if _is_passing(exc):
                    raise
                return True  # no right to look, or a store that knows no parts
        if "aws:kms" in str(head.get("ServerSideEncryption", "")) or head.get("SSECustomerAlgorithm"):
            return True
        length = int(head["ContentLength"])
        if match[2] and (length == 0 or -(-remote.size // length) != int(match[2])):
            return True  # the parts are of different sizes, or the store does not tell them
        return match[2] is not None and match[1] == _etag(path, length)

    def _uri(self, remote: Remote) -> str:
        return f"s3://{self.bucket}/{remote.key}"

    def _place(self, remote: Remote) -> str:
        return place_of(self._uri(remote))


def _is_passing(exc: ClientError) -> bool:
    """May the same request work in a moment?"""
    status = int(exc.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    return status >= 500 or status == 429 or code_of(exc) in ("SlowDown", "RequestTimeout")


def _join(parts: Sequence[Path], whole: Path) -> str:
    """All of them in one file, and its SHA-256."""
    digest = hashlib.sha256()
    with whole.open("wb") as file:
        for part in parts:
            content = part.read_bytes()
            digest.update(content)
            file.write(content)
    return digest.hexdigest()


def _etag(path: Path, part_size: int | None) -> str:
    """MD5 of the content, or of the MD5s of its parts: what S3 calls a thing, no protection against malice."""
    with path.open("rb") as file:
        if part_size is None:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        parts = [hashlib.md5(part, usedforsecurity=False).digest() for part in iter(lambda: file.read(part_size), b"")]
    return hashlib.md5(b"".join(parts), usedforsecurity=False).hexdigest()
