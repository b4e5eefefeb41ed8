"""The two aliases of a registered model that promotions move."""

from dataclasses import dataclass
from datetime import timedelta

from mlflow.exceptions import MlflowException

from pipelines.errors import PromotionError
from pipelines.registry.search import has_model
from pipelines.registry.store import Store, mlflow_errors


@dataclass(frozen=True, slots=True, kw_only=True)
class Aliases:
    """The names of the two aliases, and how long a promotion may hold the model."""

    champion: str = "champion"
    previous: str = "previous"
    lease: timedelta = timedelta(minutes=30)


def read_aliases(store: Store, name: str, aliases: Aliases) -> tuple[int | None, int | None]:
    """What they mean now. Raises PromotionError, RegistryError."""
    champion, previous = (_read(store, name, alias) for alias in (aliases.champion, aliases.previous))
    if champion is None and not has_model(store, name):
        raise PromotionError(f"there is no registered model {name!r}", store.shown, "name a model that is registered there")
    return champion, previous


def _read(store: Store, name: str, alias: str) -> int | None:
    """The model itself is not asked: MLflow reads all its versions to answer, and there may be thousands."""
    with mlflow_errors("the aliases cannot be read", f"{name} in {store.shown}"):
        try:
            return int(store.client.get_model_version_by_alias(name, alias).version)
        except MlflowException as exc:
            if exc.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                raise
    return None


def set_alias(store: Store, name: str, alias: str, version: int | None) -> None:
    with mlflow_errors(f"the alias {alias!r} cannot be moved", f"{name} in {store.shown}"):
        if version is None:
            store.client.delete_registered_model_alias(name, alias)
        else:
            store.client.set_registered_model_alias(name, alias, str(version))


def is_there(store: Store, name: str, version: int) -> bool:
    """Has it not been deleted?"""
    with mlflow_errors("the version cannot be read", f"{name} in {store.shown}"):
        try:
            store.client.get_model_version(name, str(version))
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return False
    return True
