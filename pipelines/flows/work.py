"""The folder of one piece of work: it outlives a killed process, so that the same command goes on from there."""

import contextlib
import fcntl
import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from pipelines.errors import SecateurError, StorageError, UnderWayError, is_interrupt

FORGOTTEN_DAYS = 14
LOCK = "lock"
R = TypeVar("R")


@contextlib.contextmanager
def work_place(parent: Path, key: str) -> Iterator[Path]:
    """A folder of the work `key` for this process alone: removed after success and after what another try cannot mend.

    It stays after an interrupt, a crash, a failure of the platform or a full disk, for FORGOTTEN_DAYS.
    Raises UnderWayError where another process is at the same work.
    """
    _sweep(parent)
    folder = parent / key
    lock = _lock(folder)
    if lock is None:
        raise UnderWayError(
            "the same work is under way in another process", str(folder), "wait until it has ended, or end it first"
        )
    try:
        yield folder
    except BaseException as exc:
        if not _is_worth_another_try(exc):
            shutil.rmtree(folder, ignore_errors=True)
        raise
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def begin_anew(folder: Path) -> None:
    """Without what an earlier process has left there."""
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name != LOCK:
            path.unlink()


def recall(path: Path, kind: type[R]) -> R | None:
    """What an earlier process has written there, if all of it is."""
    try:
        return TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def remember(path: Path, record: R) -> R:
    """Write it, whole or not at all; the files that it refers to are there already. Raises StorageError."""
    part = path.with_suffix(".part")
    try:
        part.write_bytes(TypeAdapter(type(record)).dump_json(record))
        part.replace(path)
    except OSError as exc:
        raise StorageError(
            f"what was done cannot be written down: {exc.strerror}", str(path), "make room on that disk and run again"
        ) from exc
    return record


def _is_worth_another_try(exc: BaseException) -> bool:
    if isinstance(exc, SecateurError) and not is_interrupt(exc):
        return isinstance(exc, (StorageError, UnderWayError)) or bool(getattr(exc, "retryable", False))
    return True


def _lock(folder: Path) -> int | None:
    """An open file that the system frees when the process dies, however it does; None: another process has it."""
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR)
        except FileNotFoundError:
            continue  # its owner has just removed the folder
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            return None
        os.utime(lock)  # it is not forgotten
        if (folder / LOCK).exists() and os.path.samestat(os.fstat(lock), (folder / LOCK).stat()):
            return lock
        os.close(lock)


def _sweep(parent: Path) -> None:
    """Remove what nobody has come back for."""
    oldest = time.time() - FORGOTTEN_DAYS * 86400
    for marker in parent.glob(f"*/{LOCK}"):
        with contextlib.suppress(FileNotFoundError):
            if marker.stat().st_mtime < oldest and (lock := _lock(marker.parent)) is not None:
                shutil.rmtree(marker.parent, ignore_errors=True)
                os.close(lock)
