"""Searches of the registry, page by page: a registry may hold thousands of versions."""

from collections.abc import Iterator

from mlflow.entities.model_registry import ModelVersion

from pipelines.registry.store import Store, mlflow_errors

PAGE = 500


def search_versions(store: Store, filter_string: str) -> Iterator[ModelVersion]:
    """Every version that the filter finds, the newest first. Raises RegistryError."""
    token: str | None = None
    while True:
        with mlflow_errors("the versions cannot be searched", store.uri):
            page = store.client.search_model_versions(filter_string, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
