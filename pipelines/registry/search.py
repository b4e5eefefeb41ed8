"""Searches of the registry, page by page: a registry may hold thousands of versions."""

from collections.abc import Iterator

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from pipelines.registry.store import Store, mlflow_errors

PAGE = 500


def has_model(store: Store, name: str) -> bool:
    """Is there a registered model of that name? Raises RegistryError."""
    with mlflow_errors("the registry cannot be asked", store.shown):
        try:
            store.client.get_registered_model(name)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
    return True


def search_versions(store: Store, filter_string: str) -> Iterator[ModelVersion]:
    """Every version that the filter finds, the newest first. Raises RegistryError."""
    token: str | None = None
    while True:
        with mlflow_errors("the versions cannot be searched", store.shown):
            page = store.client.search_model_versions(filter_string, max_results=PAGE, page_token=token)
        yield from page
        token = page.token
        if not token:
            return
