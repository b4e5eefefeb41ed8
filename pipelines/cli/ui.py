"""`secateur ui`."""

import contextlib
from typing import Annotated

import typer

from pipelines import environment
from pipelines.cli.app import app, out
from pipelines.servers import MLFLOW_PORT, PREFECT_PORT


@app.command()
def ui(
    mlflow_port: Annotated[int, typer.Option(help="Another one is taken if this is in use.")] = MLFLOW_PORT,
    prefect_port: Annotated[int, typer.Option(help="Another one is taken if this is in use.")] = PREFECT_PORT,
) -> None:
    """Serve the MLflow UI and the Prefect UI of the local store, on this machine only, until Ctrl-C."""
    import time

    from pipelines.servers import announced, check_alone, free_port, mlflow_server, prefect_server

    check_alone()
    with (
        mlflow_server(environment.default_tracking_uri(), free_port(mlflow_port)) as mlflow,
        prefect_server(free_port(prefect_port)) as prefect,
    ):
        out.print("starting both servers, about half a minute ...")
        mlflow.ready()
        prefect.ready()
        out.print(f"MLflow UI   {mlflow.url}/#/models\nPrefect UI  {prefect.url}/runs\nCtrl-C stops both")
        with announced(prefect), contextlib.suppress(KeyboardInterrupt):
            while mlflow.process.poll() is None and prefect.process.poll() is None:
                time.sleep(0.5)
