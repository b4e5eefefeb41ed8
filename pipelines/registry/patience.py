"""Requests that are made again when the store was away for a while, and those that must never be carried out twice."""

import contextlib
import os
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from pipelines.errors import RegistryError
from pipelines.registry.store import mlflow_errors

R = TypeVar("R")
RETRY_DELAYS = (1.0, 4.0, 16.0)  # seconds; MLflow's own client waits some more before it gives up each time
_OWN_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
_sending = threading.RLock()


def patiently(doing: str, where: str, call: Callable[[], R]) -> R:
    """What `call` gives; it is called again after a while where the failure can pass by itself. Raises RegistryError."""
    for delay in RETRY_DELAYS:
        try:
            with mlflow_errors(doing, where):
                return call()
        except RegistryError as exc:
            if not exc.retryable:
                raise
            time.sleep(delay)
    with mlflow_errors(doing, where):
        return call()


@contextlib.contextmanager
def sent_once() -> Iterator[None]:
    """MLflow's client repeats a POST after a 5xx or a lost connection, also one that was carried out: not in here.

    Whoever makes something in here looks, after a failure, whether it is there. The switch is the process's, so other
    threads are less patient meanwhile, too.
    """
    with _sending:
        before = os.environ.get(_OWN_RETRIES)
        os.environ[_OWN_RETRIES] = "0"
        try:
            yield
        finally:
            if before is None:
                del os.environ[_OWN_RETRIES]
            else:
                os.environ[_OWN_RETRIES] = before
