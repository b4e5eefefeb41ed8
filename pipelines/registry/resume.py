"""What an earlier try of the same work has left in the store, when it is taken up again."""

from collections.abc import Collection
from dataclasses import dataclass

from mlflow.entities import LifecycleStage, RunStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipelines import lineage
from pipelines.registry.naming import quoted
from pipelines.registry.store import Store, mlflow_errors


@dataclass(frozen=True, slots=True)
class Registered:
    """A version that is there already, complete: it was made in one request, after its run had all its numbers."""

    version: int
    export_notes: str


def find_registered(store: Store, name: str, run_id: str) -> Registered | None:
    """The version that was made of this run's model. Raises RegistryError."""
    with mlflow_errors("the versions cannot be searched", name):
        found = version_of_run(store, name, run_id)
        if found is None:
            return None
        return Registered(found, store.client.get_run(run_id).data.tags.get(lineage.EXPORT_NOTES, ""))


def find_same(store: Store, name: str, experiment_id: str, key: str, title: str, weights_digest: str) -> Registered | None:
    """The version that an earlier try of the same work made of this candidate, of the very same weights.

    So a compression that is run again for the candidates it had lost registers the others no second time.
    Raises RegistryError.
    """
    tags = {lineage.WORK_KEY: key, lineage.KIND: "candidate", lineage.WEIGHTS_DIGEST: weights_digest}
    query = " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
    with mlflow_errors("earlier runs cannot be searched", store.shown):
        for run in store.client.search_runs([experiment_id], query, order_by=["attributes.start_time ASC"]):
            if run.info.run_name == title and (known := find_registered(store, name, run.info.run_id)) is not None:
                return known
    return None


def remove_doubles(store: Store, name: str, run_ids: Collection[str]) -> None:
    """A request to make a version that was given up for lost may have been carried out late: the first version counts.

    Raises RegistryError.
    """
    with mlflow_errors("the versions cannot be searched", name):
        for run_id in run_ids:
            made = sorted(_versions_of_run(store, name, run_id), key=lambda v: int(v.version))
            same = [late for late in made[1:] if (late.tags, late.description) == (made[0].tags, made[0].description)]
            for late in same:
                if not store.client.get_model_version(name, late.version).aliases:  # a search leaves them out
                    store.client.delete_model_version(name, late.version)


def version_of_run(store: Store, name: str, run_id: str) -> int | None:
    return min((int(version.version) for version in _versions_of_run(store, name, run_id)), default=None)


def _versions_of_run(store: Store, name: str, run_id: str) -> list[ModelVersion]:
    return list(store.client.search_model_versions(f"name={quoted(name)} and run_id='{run_id}'"))


def forget_exports(store: Store, experiment_id: str, run_id: str) -> None:
    """Models that this run stored and that became no version: an answer was lost, or the process. Raises RegistryError."""
    with mlflow_errors("the models of an earlier try cannot be removed", run_id):
        for model in store.client.search_logged_models([experiment_id], f"source_run_id = '{run_id}'"):
            store.client.delete_logged_model(model.model_id)


def reopen(store: Store, run_ids: tuple[str, ...]) -> bool:
    """Let the runs of an earlier try go on; False, and nothing is changed, where one of them is gone or has finished."""
    try:
        runs = [store.client.get_run(run_id) for run_id in run_ids]
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    if runs[0].info.status == RunStatus.to_string(RunStatus.FINISHED):
        return False
    if any(run.info.lifecycle_stage != LifecycleStage.ACTIVE for run in runs):
        return False
    for run in runs:
        store.client.update_run(run.info.run_id, status=RunStatus.to_string(RunStatus.RUNNING))
        if lineage.FAILURE in run.data.tags:
            store.client.delete_tag(run.info.run_id, lineage.FAILURE)
    return True
