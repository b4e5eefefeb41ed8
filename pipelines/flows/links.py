"""From MLflow to the Prefect run, and back."""

from prefect import runtime
from prefect.utilities.urls import url_for

from pipelines.addresses import without_login
from pipelines.environment import has_own_prefect_server
from pipelines.servers import HOST, MLFLOW_PORT, PREFECT_PORT, announced_prefect


def flow_run_url() -> str | None:
    """Where the Prefect UI shows this run; None outside of a flow.

    A server that was started for this run alone ends with it: `secateur ui` shows its runs, at a port of its own.
    """
    if not runtime.flow_run.id:
        return None
    if has_own_prefect_server() or announced_prefect() is not None:
        return url_for("flow-run", obj_id=runtime.flow_run.id)  # `runtime.flow_run.ui_url` is an address of Prefect 2
    return f"http://{HOST}:{PREFECT_PORT}/runs/flow-run/{runtime.flow_run.id}"


def mlflow_address(tracking_uri: str) -> str:
    """Of the MLflow UI, with a slash at its end: the server that keeps the records, or that of `secateur ui`."""
    if tracking_uri.startswith(("http://", "https://")):
        return f"{without_login(tracking_uri).rstrip('/')}/"
    return f"http://{HOST}:{MLFLOW_PORT}/"
