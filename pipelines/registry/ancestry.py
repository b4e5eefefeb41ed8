"""The chain from a version back to the model that was not made by us, read from the registry alone."""

import hashlib
from dataclasses import replace

import mlflow.artifacts
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipelines import lineage
from pipelines.config import MODEL_URI
from pipelines.origin import Link
from pipelines.registry.decisions import decisions_in
from pipelines.registry.pull import resolve
from pipelines.registry.store import Store, mlflow_errors

GONE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


def ancestry(store: Store, uri: str) -> tuple[Link, ...]:
    """The original first, `uri` last; what has been deleted ends it with a note. Raises SourceError, RegistryError."""
    links: list[Link] = []
    current: str | None = resolve(store, uri).uri
    while current is not None and current not in {link.uri for link in links}:
        link = _link(store, current)
        links.append(link)
        current = link.source
    return tuple(reversed(links))


def _link(store: Store, uri: str) -> Link:
    match = MODEL_URI.fullmatch(uri)
    if match is None or match["version"] is None:
        return Link(uri=uri, note="no version of a registered model")
    with mlflow_errors("the chain cannot be read", uri):
        try:
            version = store.client.get_model_version(match["name"], match["version"])
        except MlflowException as exc:
            if exc.error_code not in GONE:
                raise
            return Link(uri=uri, note="deleted from the registry")
        link = _of_version(uri, version)
        return _with_run(store, link) if link.run_id and not link.is_copy else link


def _of_version(uri: str, version: ModelVersion) -> Link:
    origin = str(version.source or "")
    is_copy = MODEL_URI.fullmatch(origin) is not None and not origin.startswith("models:/m-")
    return Link(
        uri=uri,
        source=origin if is_copy else None,
        is_copy=is_copy,
        copied_from=version.tags.get(lineage.TAG_COPIED_FROM),
        method=version.tags.get(lineage.TAG_METHOD),
        asked=version.tags.get(lineage.TAG_RATIO),
        rejected=version.tags.get(lineage.TAG_REJECTED),
        run_id=version.run_id or None,
        decisions=decisions_in(version.tags),
    )


def _with_run(store: Store, link: Link) -> Link:
    """What the run knows that made the version. A copy shares its original's run, so it is not asked again."""
    assert link.run_id is not None
    try:
        run = store.client.get_run(link.run_id)
    except MlflowException as exc:
        if exc.error_code not in GONE:
            raise
        return replace(link, note="its run has been deleted")
    datasets = [entry.dataset for entry in run.inputs.dataset_inputs] if run.inputs else []
    return replace(
        link,
        source=run.data.tags.get(lineage.SOURCE),
        plan_digest=_plan_digest(store, run),
        weights_digest=run.data.tags.get(lineage.WEIGHTS_DIGEST),
        dataset=datasets[0].name if datasets else None,
        data_digest=datasets[0].digest if datasets else run.data.tags.get(lineage.DATASET_DIGEST),
        metrics=dict(run.data.metrics),
    )


def _plan_digest(store: Store, run: Run) -> str | None:
    store.select()
    try:
        text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{lineage.PLAN_FILE}")
    except (MlflowException, OSError):
        return None  # an original has none
    return hashlib.sha256(text.encode()).hexdigest()
