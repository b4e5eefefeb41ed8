import shutil
import sqlite3
import traceback
from pathlib import Path

import pytest

from pipelines import registry
from pipelines.errors import RegistryError
from pipelines.servers import free_port
from tests.conftest import files_below


def test_a_missing_store_is_refused_and_not_made(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "mlflow.db"
    with pytest.raises(RegistryError, match="no MLflow store") as caught:
        registry.open_store(f"sqlite:///{path}")
    assert "secateur demo" in caught.value.fix
    assert not caught.value.retryable
    assert not path.parent.exists()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_text("not a database, but long enough to look at" * 20)
    with pytest.raises(RegistryError, match="cannot be written"):
        registry.open_store(f"sqlite:///{path}")


def test_a_locked_database_is_refused(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sqlite3.connect
    holder = real(store_uri.removeprefix("sqlite:///"))
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr(sqlite3, "connect", lambda *args, **options: real(*args, **{**options, "timeout": 0.1}))
    try:
        with pytest.raises(RegistryError, match="locked"):
            registry.open_store(store_uri)
    finally:
        holder.close()


def test_opening_a_store_leaves_it_as_it_was(store_uri: str) -> None:
    before = sqlite3.connect(store_uri.removeprefix("sqlite:///"))
    schema = before.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall()
    before.close()
    registry.open_store(store_uri)
    after = sqlite3.connect(store_uri.removeprefix("sqlite:///"))
    assert after.execute("SELECT name FROM sqlite_master ORDER BY name").fetchall() == schema
    after.close()


def test_an_unreachable_server_is_a_retryable_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match="does not answer") as caught:
        registry.open_store("http://127.0.0.1:9")
    assert caught.value.retryable


def test_artifacts_that_cannot_be_written_are_refused(store_uri: str, tmp_path: Path) -> None:
    store = registry.open_store(store_uri)
    (tmp_path / "file").write_text("in the way")
    for location in (tmp_path / "file" / "artifacts", Path("/proc/secateur")):
        with pytest.raises(RegistryError, match="cannot be written"):
            registry.check_writable(store, location.as_uri())


def test_the_check_leaves_nothing_behind(store_uri: str, tmp_path: Path) -> None:
    store = registry.open_store(store_uri)
    folder = tmp_path / "artifacts" / "deep"
    registry.check_writable(store, folder.as_uri())
    assert not folder.exists()
    folder.mkdir(parents=True)
    registry.check_writable(store, str(folder))
    assert not files_below(tmp_path / "artifacts")
    registry.check_writable(store, "s3://bucket/path")  # only its first upload can tell
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        (
            "postgresql+psycopg2://app:p@ss@h:5432/db?sslpassword=x",
            "postgresql+psycopg2://app:***@h:5432/db?sslpassword=***",
        ),
        ("http://me:hidden@h:5000/x@y", "http://me:***@h:5000/x@y"),
        ("https://hidden@h/", "https://***@h/"),
        ("http://127.0.0.1:5000/a@b", "http://127.0.0.1:5000/a@b"),
        ("sqlite:////a:b@c/x.db", "sqlite:////a:b@c/x.db"),
    ],
)
def test_passwords_are_not_shown(uri: str, shown: str) -> None:
    assert registry.Store(uri).shown == shown


def test_an_error_and_its_causes_hold_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow's own text names the whole address, and Prefect keeps tracebacks."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    password = "hid" + "den"  # the traceback shows these lines
    with pytest.raises(RegistryError, match=r"me:\*\*\*@") as caught:
        registry.open_store(f"http://me:{password}@127.0.0.1:{free_port()}")
    assert password not in "".join(traceback.format_exception(caught.value))
