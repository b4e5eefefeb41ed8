"""The store behind a tracking URI: is it there, can it be written, and what its errors mean."""

import contextlib
import logging
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlparse

import mlflow
import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from pipelines.addresses import without_secrets
from pipelines.errors import RegistryError

RETRYABLE_CODES = {
    "TEMPORARILY_UNAVAILABLE",
    "INTERNAL_ERROR",
    "REQUEST_LIMIT_EXCEEDED",
    "DEADLINE_EXCEEDED",
    "ABORTED",
}
SQLITE = "sqlite:///"


@dataclass(frozen=True, slots=True)
class Store:
    """One MLflow, by its URI. Travels between tasks as that."""

    uri: str

    @property
    def client(self) -> MlflowClient:
        return MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    @property
    def shown(self) -> str:
        """The URI for errors, logs and records, which others read."""
        return without_secrets(self.uri)

    @property
    def is_local(self) -> bool:
        """A file of this machine, not a server or a shared database."""
        return self.uri.startswith(SQLITE)

    def select(self) -> None:
        """For the parts of MLflow that know only one store per process."""
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)


@contextlib.contextmanager
def mlflow_errors(doing: str, where: str) -> Iterator[None]:
    """MLflow's failures as ours."""
    fix = "see that the store is up, reachable and writable, then run again"
    try:
        yield
    except MlflowException as exc:
        retryable = exc.error_code in RETRYABLE_CODES
        told = RegistryError(f"{doing}: {without_secrets(str(exc))} [{exc.error_code}]", where, fix, retryable)
        raise told from _tellable(exc)
    except (requests.RequestException, SQLAlchemyError, OSError) as exc:
        told = RegistryError(f"{doing}: {without_secrets(str(exc))}", where, fix, retryable=True)
        raise told from _tellable(exc)


def _tellable(exc: Exception) -> Exception | None:
    """MLflow writes the whole address into its errors, and Prefect keeps tracebacks with all their causes."""
    link: BaseException | None = exc
    while link is not None:
        if without_secrets(str(link)) != str(link):
            return None
        link = link.__cause__ or link.__context__
    return exc


def open_store(uri: str) -> Store:
    """A store that exists and answers. Makes nothing. Raises RegistryError."""
    if uri.startswith(SQLITE):
        _check_sqlite(sqlite_path(uri))
    logging.getLogger("alembic").setLevel(logging.WARNING)
    store = Store(uri)
    store.select()
    with mlflow_errors("the store does not answer", store.shown):
        store.client.search_experiments(max_results=1)
    return store


def create_store(uri: str) -> Store:
    """The same, but a SQLite store that is missing is made first."""
    logging.getLogger("alembic").setLevel(logging.WARNING)
    if uri.startswith(SQLITE):
        path = sqlite_path(uri)
        with mlflow_errors("the store cannot be made", uri):
            path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            with mlflow_errors("the store cannot be made", uri):
                Store(uri).client.search_experiments(max_results=1)
    return open_store(uri)


def check_writable(store: Store, artifact_location: str) -> None:
    """Fail now, not after an hour of training. Leaves nothing behind. Raises RegistryError."""
    folder = local_folder(artifact_location)
    if folder is None:
        return  # a remote artifact store: only its own answer at the first upload can tell
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".secateur-probe-"):
            pass
    except OSError as exc:
        raise RegistryError(
            f"the artifact store cannot be written: {exc.strerror or exc}",
            f"{artifact_location} (of {store.shown})",
            "make the folder writable, or name another experiment in registration.experiment",
        ) from exc


def sqlite_path(uri: str) -> Path:
    return Path(unquote(uri.removeprefix(SQLITE)))


def local_folder(location: str) -> Path | None:
    """The path of a `file:` URI or plain path; None for anything remote."""
    parts = urlparse(location)
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    return Path(location) if parts.scheme == "" else None


def _check_sqlite(path: Path) -> None:
    try:
        if not path.is_file():
            raise RegistryError(
                f"there is no MLflow store: {path} is no file",
                f"tracking.uri = {SQLITE}{path}",
                "set tracking.uri (or MLFLOW_TRACKING_URI) to your MLflow, or run `secateur demo` to make a local one",
            )
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=10)
        with contextlib.closing(connection):
            connection.execute("BEGIN IMMEDIATE")  # takes the write lock and gives it back
            connection.execute("CREATE TABLE secateur_probe (x)")
            connection.rollback()
    except (OSError, sqlite3.Error) as exc:
        raise RegistryError(
            f"the store cannot be written: {exc}",
            f"tracking.uri = {SQLITE}{path}",
            "make the file and its folder writable",
        ) from exc


def now_ms() -> int:
    """Milliseconds since 1970, as MLflow writes times."""
    return int(time.time() * 1000)
