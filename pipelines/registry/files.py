"""The files of a registered version: their digest, and the recipe they were made by."""

import hashlib
from pathlib import Path

import mlflow.artifacts
from mlflow.exceptions import MlflowException

from pipelines import lineage
from pipelines.registry.pull import SourceVersion
from pipelines.registry.store import Store, mlflow_errors

NOTES = {"registered_model_meta"}  # MLflow's own, about the download
CHUNK = 1 << 20


def folder_digest(folder: Path) -> str:
    """SHA-256 over names and contents of all files below `folder`."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in NOTES):
        content = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(CHUNK):
                content.update(chunk)
        total.update(f"{path.relative_to(folder).as_posix()}\0{content.hexdigest()}\n".encode())
    return total.hexdigest()


def stored_recipe(store: Store, version: SourceVersion) -> str | None:
    """The YAML text that `secateur compress` kept with the parent run of a version; None for a version not made by it."""
    if version.run_id is None:
        return None
    store.select()
    with mlflow_errors("the recipe cannot be read", version.uri):
        parent = store.client.get_run(version.run_id).data.tags.get("mlflow.parentRunId")
        if parent is None:
            return None
        uri = store.client.get_run(parent).info.artifact_uri
        try:
            return str(mlflow.artifacts.load_text(f"{uri}/{lineage.CONFIG_FILE}"))
        except (MlflowException, OSError):
            return None  # its artifacts are gone, or it was another program's run
