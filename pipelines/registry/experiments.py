"""The experiment in which the runs of a model's compressions are."""

from mlflow.entities import Experiment, LifecycleStage
from mlflow.exceptions import MlflowException

from pipelines.errors import RegistryError
from pipelines.registry.pull import SourceVersion
from pipelines.registry.store import Store, mlflow_errors


def experiment_of(store: Store, source: SourceVersion, name: str | None) -> str | None:
    """By name, or the source's own; None if there is none yet. Raises RegistryError for one that was deleted."""
    if name is None and source.experiment_id is not None:
        return source.experiment_id
    with mlflow_errors("the experiment cannot be found", store.shown):
        known = store.client.get_experiment_by_name(name or source.name)
    return None if known is None else _id_of(known)


def make_experiment(store: Store, source: SourceVersion, name: str | None) -> str:
    """The same, made if there is none."""
    if name is None and source.experiment_id is not None:
        return source.experiment_id
    return experiment_named(store, name or source.name, source.artifact_location)


def experiment_named(store: Store, name: str, artifact_location: str | None) -> str:
    """Of that name, made if there is none; another may make it at the same time."""
    known = store.client.get_experiment_by_name(name)
    if known is None:
        try:
            return str(store.client.create_experiment(name, artifact_location))
        except MlflowException as exc:
            known = store.client.get_experiment_by_name(name)
            if exc.error_code != "RESOURCE_ALREADY_EXISTS" or known is None:
                raise
    return _id_of(known)


def _id_of(experiment: Experiment) -> str:
    if experiment.lifecycle_stage != LifecycleStage.ACTIVE:
        raise RegistryError(
            f"the experiment {experiment.name!r} was deleted",
            "registration.experiment",
            f"restore it (mlflow experiments restore -x {experiment.experiment_id}), or name another one",
        )
    return str(experiment.experiment_id)
