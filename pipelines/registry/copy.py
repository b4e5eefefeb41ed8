"""Take a version to another registered model, or to another registry. Asked twice, it is copied once."""

import contextlib
import tempfile
from pathlib import Path

import mlflow.artifacts
from mlflow.entities import LoggedModelStatus
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from pipelines import lineage
from pipelines.registry.decisions import fitted
from pipelines.registry.experiments import experiment_named
from pipelines.registry.integrity import check_digests, seal_of
from pipelines.registry.naming import logged_name, quoted
from pipelines.registry.patience import patiently, sent_once
from pipelines.registry.pull import resolve
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
        for known in search_versions(store, f"name={quoted(target_name)} and source_path={quoted(origin)}"):
            return int(known.version)
        with sent_once():
            return int(store.client.copy_model_version(origin, target_name).version)

    return patiently("the version cannot be copied", f"{origin} to {target_name}", find_or_copy)


def _copy_across(store: Store, name: str, version: int, target: Store, target_name: str) -> int:
    origin = f"models:/{name}/{version}"
    label = f"{origin} of {store.shown}"
    where = f"{label} to {target_name} of {target.shown}"
    with mlflow_errors("the version cannot be copied", where):
        if (known := _copied(target, target_name, label)) is not None:
            return known
        source = store.client.get_model_version(name, str(version))
        experiment_id = experiment_named(target, target_name, None)
        run_id = target.client.create_run(experiment_id, run_name=f"copy of {name} v{version}").info.run_id
        try:
            with tempfile.TemporaryDirectory() as folder:
                store.select()
                files = Path(mlflow.artifacts.download_artifacts(origin, dst_path=folder))
                _check_whole(store, origin, files)
                model_id = _store_files(files, target, target_name, experiment_id, run_id)
        except BaseException:
            with contextlib.suppress(MlflowException):  # the models tab shows no half copies
                target.client.delete_run(run_id)
            raise
        finally:
            store.select()
        target.client.set_terminated(run_id)
        with contextlib.suppress(MlflowException):  # it is there already, or the next request says what is wrong
            target.client.create_registered_model(target_name)

    def find_or_make() -> int:
        target.select()  # MLflow looks for the model there
        if (known := _copied(target, target_name, label)) is not None:
            return known
        with sent_once():
            made = target.client.create_model_version(
                target_name,
                f"models:/{model_id}",
                run_id,
                tags={**source.tags, lineage.TAG_COPIED_FROM: label},
                description=fitted(source.description or ""),
                model_id=model_id,
            )
        return int(made.version)

    try:
        return patiently("the version cannot be copied", where, find_or_make)
    finally:
        store.select()


def _copied(target: Store, target_name: str, label: str) -> int | None:
    """The copy of that version, if it has been copied before."""
    tag = f"tags.`{lineage.TAG_COPIED_FROM}` = {quoted(label)}"
    return next((int(v.version) for v in search_versions(target, f"name={quoted(target_name)} and {tag}")), None)


def _check_whole(store: Store, origin: str, files: Path) -> None:
    """A copy gets a seal of its own, so what is sealed must be what was registered. Raises SourceError."""
    model_id = resolve(store, origin).model_id
    seal = store.client.get_logged_model(model_id).tags.get(lineage.SEAL) if model_id else None
    check_digests(files, dict(Model.load(str(files)).metadata or {}), seal, origin)


def _store_files(files: Path, target: Store, name: str, experiment_id: str, run_id: str) -> str:
    """As a model of that run, with all that is in the files; its id."""
    client = target.client
    (files / "registered_model_meta").unlink(missing_ok=True)  # MLflow's note of where it was downloaded from
    saved = Model.load(str(files))
    metadata = dict(saved.metadata or {})
    seal = {lineage.SEAL: seal_of(metadata)} if lineage.DIGESTS_KEY in metadata else {}
    logged = client.create_logged_model(experiment_id, name=logged_name(name), source_run_id=run_id, tags=seal)
    try:
        saved.run_id, saved.model_id, saved.artifact_path = run_id, logged.model_id, logged.artifact_location
        saved.model_uuid = logged.model_id
        saved.save(str(files / "MLmodel"))
        target.select()
        client.log_model_artifacts(logged.model_id, str(files))
        client.finalize_logged_model(logged.model_id, LoggedModelStatus.READY)
    except BaseException:
        with contextlib.suppress(MlflowException):
            client.delete_logged_model(logged.model_id)
        raise
    return str(logged.model_id)


def is_copied(store: Store, name: str, version: int, target: Store, target_name: str, alias: str) -> bool:
    """Does `alias` of the other model mean a copy of this version? Raises RegistryError."""
    origin = f"models:/{name}/{version}"
    with mlflow_errors("the copy cannot be looked for", f"{target_name} of {target.shown}"):
        try:
            found = target.client.get_model_version_by_alias(target_name, alias)
        except MlflowException as exc:
            if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            return False
    return found.source == origin or found.tags.get(lineage.TAG_COPIED_FROM) == f"{origin} of {store.shown}"
