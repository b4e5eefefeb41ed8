"""`secateur receive`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app, out
from pipelines.cli.scan import Alias, Models, Tag

SECRET = "SECATEUR_WEBHOOK_SECRET"  # noqa: S105  the name of a variable


@app.command()
def receive(
    recipe: Annotated[Path, typer.Argument(help="As for `secateur scan`.")],
    deployment: Annotated[str, typer.Option(help="The Prefect deployment that does the work.")] = "compress/secateur",
    models: Models = "*",
    alias: Alias = None,
    tag: Tag = None,
    host: Annotated[str, typer.Option(help="Where to listen.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Where to listen.")] = 8765,
) -> None:
    """Listen for MLflow's registry webhooks at /mlflow and do for each version what a scan does.

    The secret that the webhook was made with is taken from SECATEUR_WEBHOOK_SECRET.
    """
    import uvicorn

    from pipelines.config import ScanConfig, load_config, parse_section
    from pipelines.errors import ConfigError
    from pipelines.receiver import Event, receiver

    secret = os.environ.get(SECRET)
    if not secret:
        raise ConfigError("there is no secret to check signatures with", SECRET, "set it as in create_webhook(secret=)")
    raw = {
        "recipe": load_config(recipe),
        "models": models,
        "alias": alias or (None if tag else "champion"),
        "tag": tag,
        "deployment": deployment,
    }
    config = parse_section(ScanConfig, raw, "the command line")
    from pipelines.flows.scan import consider, marked

    def act(event: Event) -> None:
        for uri in marked(config, only=event.uri):
            found = consider(config, uri)
            out.print(f"{found.uri}: {found.outcome} {found.detail}", soft_wrap=True)

    out.print(f"listening at http://{host}:{port}/mlflow; Ctrl-C stops")
    uvicorn.run(receiver(secret, act), host=host, port=port, log_level="warning")
