"""`secateur serve`."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from pipelines import environment
from pipelines.cli.app import app, out
from pipelines.cli.deploy import EVERY, CompressAt, PromoteAt, ScanAt, on_server, scanned, schedules
from pipelines.cli.scan import Alias, Models, Tag
from pipelines.servers import MLFLOW_PORT, PREFECT_PORT


@app.command()
def serve(
    recipe: Annotated[Path, typer.Argument(help="What is done with the versions that are found.")],
    compress_at: CompressAt = None,
    promote_at: PromoteAt = None,
    scan_at: ScanAt = EVERY,
    models: Models = "*",
    alias: Alias = None,
    tag: Tag = None,
    mlflow_port: Annotated[int, typer.Option(help="Another one is taken if this is in use.")] = MLFLOW_PORT,
    prefect_port: Annotated[int, typer.Option(help="Another one is taken if this is in use.")] = PREFECT_PORT,
) -> None:
    """Run it all on this machine until Ctrl-C: both servers, the deployments with their schedules, and a worker.

    Servers listen on 127.0.0.1 only. MLflow's server is left out where the recipe's tracking.uri is one already.
    """
    import time

    from pipelines.config import load_config
    from pipelines.servers import announced, check_alone, free_port, mlflow_server, prefect_server, prefect_worker

    check_alone()
    config = load_config(recipe)
    uri = config.tracking.uri
    environment.data_folder().mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        prefect = stack.enter_context(prefect_server(free_port(prefect_port)))
        running = [prefect]
        if not uri.startswith("http"):
            running.append(stack.enter_context(mlflow_server(uri, free_port(mlflow_port))))
        out.print("starting the servers, about half a minute ...")
        for server in running:
            server.ready()
        options = scanned(models, alias, tag)
        made = on_server(prefect.url, config, "secateur", schedules(compress_at, promote_at, scan_at), options)
        stack.enter_context(announced(prefect))
        worker = stack.enter_context(prefect_worker(f"{prefect.url}/api", "secateur"))
        running.append(worker)
        out.print(f"deployments {', '.join(made)}")
        for server in running[:-1]:
            out.print(f"{server.name} UI  {server.url}")
        out.print(f"worker log  {worker.log}\nCtrl-C stops all")
        with contextlib.suppress(KeyboardInterrupt):
            while all(server.process.poll() is None for server in running):
                time.sleep(0.5)
