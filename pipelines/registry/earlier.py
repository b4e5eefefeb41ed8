"""What became of work that was done before."""

import mlflow.artifacts
from mlflow.exceptions import MlflowException
from pydantic import TypeAdapter, ValidationError

from pipelines import lineage
from pipelines.registry.store import Store, mlflow_errors
from pipelines.steps.compare import Comparison, Row


def find_finished(
    store: Store, experiment_id: str, name: str, key: str, *, with_failures: bool = False
) -> Comparison | None:
    """What an earlier, finished run of exactly this work said, if all it registered is still there.

    One in which a candidate failed counts only `with_failures`.
    """
    store.select()
    finished = f"tags.`{lineage.WORK_KEY}` = '{key}' and attributes.status = 'FINISHED'"
    with mlflow_errors("earlier runs cannot be searched", store.shown):
        for run in store.client.search_runs([experiment_id], f"{finished} and tags.`{lineage.KIND}` = 'parent'"):
            try:
                text = mlflow.artifacts.load_text(f"{run.info.artifact_uri}/{lineage.COMPARISON_JSON}")
                comparison = TypeAdapter(Comparison).validate_json(text)
            except (MlflowException, OSError, ValidationError):
                continue  # its artifacts are gone, or of another version of ours
            if (with_failures or not comparison.failures) and all(_is_kept(store, name, row) for row in comparison.rows):
                return comparison
    return None


def _is_kept(store: Store, name: str, row: Row) -> bool:
    if row.version is None:
        return True
    try:
        store.client.get_model_version(name, str(row.version))
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return False
    return True


def failed_run(store: Store, experiment_id: str, key: str) -> str | None:
    """The last parent run of this work, if it failed. One that was killed is worth another try."""
    query = f"tags.`{lineage.WORK_KEY}` = '{key}' and tags.`{lineage.KIND}` = 'parent'"
    with mlflow_errors("earlier runs cannot be searched", store.shown):
        found = store.client.search_runs([experiment_id], query, max_results=1, order_by=["attributes.start_time DESC"])
    return next((str(run.info.run_id) for run in found if run.info.status == "FAILED"), None)
