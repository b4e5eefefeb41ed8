"""Where data sets that were fetched are kept, and a lock so that processes beside each other do not fetch twice."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path


def cache_folder() -> Path:
    """`secateur` in the user's cache: `XDG_CACHE_HOME`, or `~/.cache`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "secateur"


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Alone, among all processes and threads that ask for this file. The lock goes with the process that holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
