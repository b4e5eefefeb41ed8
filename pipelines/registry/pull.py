"""From a registered version to a model of our own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.artifacts
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.tracking import MlflowClient

from pipelines import lineage
from pipelines.architecture import ModelRef
from pipelines.config import MODEL_URI
from pipelines.errors import SourceError
from pipelines.names import did_you_mean
from pipelines.registry.integrity import check_digests
from pipelines.registry.naming import quoted
from pipelines.registry.store import Store, mlflow_errors
from pipelines.registry.structure import Allowed, Download, structure_of

NAMED = 10  # versions, in an error message


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceVersion:
    """One version of a registered model: an alias has been pinned by now."""

    name: str
    version: int
    run_id: str | None
    model_id: str | None  # of the LoggedModel behind it, also of a copy; None for a version registered from a bare path
    experiment_id: str | None  # None: there is none, or it was deleted
    artifact_location: str | None  # of that experiment

    @property
    def uri(self) -> str:
        return f"models:/{self.name}/{self.version}"


def resolve(store: Store, uri: str) -> SourceVersion:
    """The version that `models:/name@alias` or `models:/name/3` means now. Raises SourceError, RegistryError."""
    match = MODEL_URI.fullmatch(uri)
    if match is None:
        raise SourceError(f"{uri!r} is no model of a registry", "source.model", "write models:/name@alias or models:/name/3")
    name, alias, number = match["name"], match["alias"], match["version"]
    where = f"{uri} in {store.shown}"
    client = store.client
    with mlflow_errors("the registry does not answer", where):
        try:
            if alias is not None:
                version = client.get_model_version_by_alias(name, alias)
            else:
                version = client.get_model_version(name, str(number))
        except MlflowException as exc:
            if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
            _say_what_is_missing(client, name, alias, number, where)
            raise
        origin = version.source or ""
        model_id = _model_id(client, origin)
        experiment = _experiment_of(client, version.run_id, model_id)
    return SourceVersion(
        name=name,
        version=int(version.version),
        run_id=version.run_id or None,
        model_id=model_id,
        experiment_id=experiment.experiment_id if experiment and experiment.lifecycle_stage == "active" else None,
        artifact_location=experiment.artifact_location if experiment else None,
    )


def _model_id(client: MlflowClient, origin: str) -> str | None:
    """Of the LoggedModel, through a chain of copies; its seal counts for them all."""
    seen: set[str] = set()
    while not origin.startswith("models:/m-"):
        match = MODEL_URI.fullmatch(origin)
        if match is None or match["version"] is None or origin in seen:
            return None
        seen.add(origin)
        try:
            origin = client.get_model_version(match["name"], match["version"]).source or ""
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None  # the original has been deleted, and its copy stands on its own
    return origin.removeprefix("models:/")


def _experiment_of(client: MlflowClient, run_id: str | None, model_id: str | None) -> Experiment | None:
    """Of the run that made the version, or of the model behind it; `mlflow gc` may have taken either."""

    def of_run() -> Any:
        return client.get_run(run_id).info.experiment_id if run_id else None

    def of_model() -> Any:
        return client.get_logged_model(model_id).experiment_id if model_id else None

    for find in (of_run, of_model):
        try:
            if (experiment_id := find()) is not None:
                return client.get_experiment(experiment_id)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    return None


def _say_what_is_missing(client: MlflowClient, name: str, alias: str | None, number: str | None, where: str) -> None:
    """The model, its alias or its version. Raises SourceError.

    It is not asked before: MLflow reads all versions of a model to tell of the model, and there may be thousands.
    """
    try:
        model = client.get_registered_model(name)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        names = [known.name for known in client.search_registered_models(max_results=1000)]
        raise SourceError(f"there is no registered model {name!r}", where, did_you_mean(name, names)) from exc
    if alias is not None and alias not in model.aliases:
        fix = f"{did_you_mean(alias, model.aliases)} Aliases are set on the model's page, or name a version"
        raise SourceError(f"the model {name!r} has no alias {alias!r}", where, fix)
    if number is not None:
        newest = client.search_model_versions(f"name={quoted(name)}", max_results=NAMED)
        known = ", ".join(sorted((str(v.version) for v in newest), key=int))
        raise SourceError(f"the model {name!r} has no version {number}", where, f"its versions: {known or 'none'}")


def fetch_model(
    store: Store,
    source: SourceVersion,
    folder: Path,
    *,
    trust: Sequence[str],
    factory: str | None = None,
    kwargs: Mapping[str, Any] | None = None,
) -> ModelRef:
    """Download a version into `folder` and say how to rebuild it. Raises SourceError, RegistryError.

    A file that is not the one that was stored is refused, and nothing is unpickled unless `trust` says so.
    """
    store.select()
    folder.mkdir(parents=True, exist_ok=True)
    with mlflow_errors("the model cannot be downloaded", source.uri):
        root = Path(mlflow.artifacts.download_artifacts(source.uri, dst_path=str(folder)))
        seal = store.client.get_logged_model(source.model_id).tags.get(lineage.SEAL) if source.model_id else None
        model = Model.load(str(root))
    check_digests(root, dict(model.metadata or {}), seal, source.uri)
    allowed = Allowed(trust=tuple(trust), factory=factory, kwargs=dict(kwargs or {}))
    return structure_of(Download(source.uri, root, model), allowed, folder / "read")


def input_shape(store: Store, source: SourceVersion) -> tuple[int, ...]:
    """The shape of one input without its batch axis, from the signature. Raises SourceError."""
    store.select()
    with mlflow_errors("the model cannot be read", source.uri):
        signature = mlflow.models.get_model_info(source.uri).signature
    shape = None
    if signature is not None and signature.inputs is not None and signature.inputs.is_tensor_spec():
        tensors = signature.inputs.inputs
        shape = tuple(tensors[0].shape[1:]) if len(tensors) == 1 else None
    if shape is None or any(size < 1 for size in shape):
        raise SourceError(
            "the version does not say what its input looks like",
            source.uri,
            "log the model with an input example, so that it has a signature of one tensor",
        )
    return shape
