"""Versions that somebody has marked to be compressed, and what has been done about them."""

import fnmatch
from collections.abc import Iterator

from mlflow.entities import RunStatus
from mlflow.entities.model_registry import ModelVersion

from pipelines import lineage
from pipelines.registry.claims import is_under_way
from pipelines.registry.naming import quoted
from pipelines.registry.pull import SourceVersion, resolve
from pipelines.registry.search import PAGE, search_versions
from pipelines.registry.store import Store, mlflow_errors


def marked_versions(store: Store, models: str, alias: str | None, tag: str | None) -> list[str]:
    """The URIs of all versions of models whose name fits the glob and that carry the alias or the tag (key=value)."""
    found = []
    if alias is not None:
        found += [f"models:/{name}/{number}" for name, number in _with_alias(store, models, alias)]
    if tag is not None:
        key, _, value = tag.partition("=")
        versions = search_versions(store, f"tags.`{key}` = {quoted(value)}")
        found += [f"models:/{v.name}/{v.version}" for v in versions if fnmatch.fnmatchcase(v.name, models)]
    return sorted(set(found))


def is_marked(store: Store, uri: str, models: str, alias: str | None, tag: str | None) -> bool:
    """Is this version one of those? Without a look at all others. Raises SourceError, RegistryError."""
    version = resolve(store, uri)
    if not fnmatch.fnmatchcase(version.name, models):
        return False
    with mlflow_errors("the version cannot be read", uri):
        found = store.client.get_model_version(version.name, str(version.version))
    key, _, value = (tag or "").partition("=")
    return alias in found.aliases or (tag is not None and found.tags.get(key) == value)


def is_ours(store: Store, source: SourceVersion) -> bool:
    """Was this version made by secateur?"""
    with mlflow_errors("the version cannot be read", source.uri):
        return made_by_us(store.client.get_model_version(source.name, str(source.version)))


def made_by_us(version: ModelVersion) -> bool:
    """By all the tags that we write: others may well call a tag `source`."""
    ours = {lineage.TAG_SOURCE, lineage.TAG_METHOD, lineage.TAG_RATIO, lineage.TAG_SPEEDUP}
    return ours <= set(version.tags)


def run_under_way(store: Store, experiment_id: str, key: str) -> str | None:
    """The parent run that does this work now. One that gives no sign of life does not count."""
    running = RunStatus.to_string(RunStatus.RUNNING)
    query = f"tags.`{lineage.WORK_KEY}` = '{key}' and tags.`{lineage.KIND}` = 'parent' and attributes.status = '{running}'"
    with mlflow_errors("the runs cannot be searched", store.shown):
        found = store.client.search_runs([experiment_id], query)
    return next((str(run.info.run_id) for run in found if is_under_way(run)), None)


def _with_alias(store: Store, models: str, alias: str) -> Iterator[tuple[str, int]]:
    token: str | None = None
    while True:
        with mlflow_errors("the registered models cannot be searched", store.shown):
            page = store.client.search_registered_models(max_results=PAGE, page_token=token)
        for model in page:
            number = dict(model.aliases).get(alias)
            if number is not None and fnmatch.fnmatchcase(model.name, models):
                yield model.name, int(number)
        token = page.token
        if not token:
            return
