"""Take a version to another registered model, or to another registry. Asked twice, it is copied once."""

import tempfile
from pathlib import Path

import mlflow.artifacts
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from pipelines import lineage
from pipelines.registry.decisions import fitted
from pipelines.registry.naming import logged_name, quoted
from pipelines.registry.patience import patiently, sent_once
from pipelines.registry.search import search_versions
from pipelines.registry.store import Store, mlflow_errors


def copy_version(store: Store, name: str, version: int, target: Store, target_name: str) -> int:
    """The number of the copy under `target_name`. The same registry shares the files; another one gets its own.

    Tags and description go along, aliases do not. Raises RegistryError.
    """
    if target.uri == store.uri:
        return _copy_inside(store, name, version, target_name)
    return _copy_across(store, name, version, target, target_name)


def _copy_inside(store: Store, name: str, version: int, target_name: str) -> int:
    origin = f"models:/{name}/{version}"

    def find_or_copy() -> int:
        for known in search_versions(store, f"name={quoted(target_name)}"):
            if known.source == origin:
                return int(known.version)
        with sent_once():
            return int(store.client.copy_model_version(origin, target_name).version)

    return patiently("the version cannot be copied", f"{origin} to {target_name}", find_or_copy)


def _copy_across(store: Store, name: str, version: int, target: Store, target_name: str) -> int:
    origin = f"models:/{name}/{version}"
    label = f"{origin} of {store.shown}"
    with mlflow_errors("the version cannot be copied", f"{label} to {target_name} of {target.shown}"):
        for known in search_versions(target, f"name={quoted(target_name)}"):
            if known.tags.get(lineage.TAG_COPIED_FROM) == label:
                return int(known.version)
        source = store.client.get_model_version(name, str(version))
        client = target.client
        with tempfile.TemporaryDirectory() as folder:
            store.select()
            files = Path(mlflow.artifacts.download_artifacts(origin, dst_path=folder))
            (files / "registered_model_meta").unlink(missing_ok=True)  # MLflow's note of where it was downloaded from
            experiment = client.get_experiment_by_name(target_name)
            experiment_id = experiment.experiment_id if experiment else client.create_experiment(target_name)
            run_id = client.create_run(experiment_id, run_name=f"copy of {name} v{version}").info.run_id
            logged = client.create_logged_model(experiment_id, name=logged_name(target_name), source_run_id=run_id)
            saved = Model.load(str(files))
            saved.run_id, saved.model_id, saved.artifact_path = run_id, logged.model_id, logged.artifact_location
            saved.model_uuid = logged.model_id
            saved.save(str(files / "MLmodel"))
            target.select()
            client.log_model_artifacts(logged.model_id, str(files))
            client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
            client.set_terminated(run_id)
        try:
            client.create_registered_model(target_name)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        made = client.create_model_version(
            target_name,
            f"models:/{logged.model_id}",
            run_id,
            tags={**source.tags, lineage.TAG_COPIED_FROM: label},
            description=fitted(source.description or ""),
            model_id=logged.model_id,
        )
        store.select()
    return int(made.version)
