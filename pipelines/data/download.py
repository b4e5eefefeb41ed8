"""Fetch a file that its makers publish, with the checksum that says that it came as they made it."""

import contextlib
import hashlib
import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from pipelines.data.folders import locked
from pipelines.errors import DataError

TRIES = 5  # in a row that bring nothing new
PAUSE_S = 0.5  # after a failure, doubled each time
CHUNK = 1 << 20
TIMEOUT_S = 30.0


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(
    address: str,
    target: Path,
    sha256: str,
    fix: str,
    *,
    digest_of: Callable[[Path], str] = sha256_of,
) -> Path:
    """`target`, once it holds what has that checksum; at once if it is there already.

    A cut connection is taken up where it broke, also by the next call: what came so far lies beside `target` as `.part`.
    Nothing is at `target` before its checksum was right. Raises DataError, whose advice is `fix`.
    """
    if target.exists():
        return target
    try:
        with locked(target.with_name(f"{target.name}.lock")):
            if not target.exists():  # another process may have been faster
                _fetch_checked(address, target, sha256, fix, digest_of)
    except OSError as exc:
        raise DataError(f"the data set cannot be kept: {exc}", str(target), "see to room and rights there") from exc
    return target


def _fetch_checked(address: str, target: Path, sha256: str, fix: str, digest_of: Callable[[Path], str]) -> None:
    part = target.with_name(f"{target.name}.part")
    _fetch(address, part, fix)
    found = digest_of(part)
    if found != sha256:
        part.unlink()
        raise DataError(f"the download has SHA-256 {found}, expected {sha256}", address, fix)
    part.replace(target)


def _fetch(address: str, part: Path, fix: str) -> None:
    """Until all of it is in `part`. Raises DataError after `TRIES` in a row that brought nothing."""
    failures = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            if _fetch_rest(address, part, before):
                return
            reason = "the connection was cut"
        except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as exc:
            reason = str(exc)
        failures = failures + 1 if not part.exists() or part.stat().st_size <= before else 0
        if failures == TRIES:
            raise DataError(f"the data set is not here and cannot be downloaded: {reason}", address, fix)
        time.sleep(PAUSE_S * 2**failures)


def _fetch_rest(address: str, part: Path, start: int) -> bool:
    """Append what is missing from byte `start` on; False where it ended too early."""
    request = urllib.request.Request(address, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310  a constant https address
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT_S)  # noqa: S310
    except urllib.error.HTTPError as exc:
        exc.close()
        if start and exc.code == 416:  # there is nothing after what we have: the checksum will tell whether it is right
            return True
        raise
    with contextlib.closing(answer):
        resumed = answer.status == 206
        length = answer.headers.get("Content-Length")
        came = 0
        with part.open("ab" if resumed else "wb") as file:
            while chunk := answer.read(CHUNK):
                file.write(chunk)
                came += len(chunk)
    return length is None or came == int(length)
