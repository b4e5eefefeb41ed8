"""`secateur deploy`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app, out
from pipelines.cli.scan import Alias, Models, Tag

EVERY = "every 15m"

CompressAt = Annotated[str | None, typer.Option(help="Cron line in UTC, or 'every 1d'. Default: by hand and by scan.")]
PromoteAt = Annotated[str | None, typer.Option(help="When to try the challenger. Default: by hand.")]
ScanAt = Annotated[str, typer.Option(help="When to look for new versions; '' for never.")]


@app.command()
def deploy(
    recipe: Annotated[Path, typer.Argument(help="What the deployments do; their forms start with it.")],
    pool: Annotated[str, typer.Option(help="The work pool; one of type process is made if there is none.")] = "secateur",
    compress_at: CompressAt = None,
    promote_at: PromoteAt = None,
    scan_at: ScanAt = EVERY,
    models: Models = "*",
    alias: Alias = None,
    tag: Tag = None,
) -> None:
    """Make the deployments compress, promote and scan on your Prefect server (PREFECT_API_URL, or the current profile)."""
    from pipelines import environment
    from pipelines.config import load_config
    from pipelines.errors import ConfigError
    from pipelines.servers import announced_prefect

    config = load_config(recipe)
    if not environment.has_own_prefect_server() and announced_prefect() is None:
        raise ConfigError(
            "there is no Prefect server to deploy to", "PREFECT_API_URL", "set it, or use `secateur serve` on one machine"
        )
    made = on_server(
        announced_prefect() if not environment.has_own_prefect_server() else None,
        config,
        pool,
        schedules(compress_at, promote_at, scan_at),
        scanned(models, alias, tag),
    )
    out.print(f"made {', '.join(made)}\nstart a worker where the work is to be done: prefect worker start --pool {pool}")


def schedules(compress_at: str | None, promote_at: str | None, scan_at: str | None) -> dict[str, str]:
    wanted = {"compress": compress_at, "promote": promote_at, "scan": scan_at}
    return {flow: text for flow, text in wanted.items() if text}


def scanned(models: str, alias: str | None, tag: str | None) -> dict[str, object]:
    return {"models": models, "alias": alias or (None if tag else "champion"), "tag": tag}


def on_server(url: str | None, config: object, pool: str, times: dict[str, str], options: dict[str, object]) -> list[str]:
    """Deploy to the server at that address; None: the one Prefect itself knows of."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipelines.config import CompressConfig
    from pipelines.flows.deployments import deploy as make

    assert isinstance(config, CompressConfig)
    with temporary_settings({PREFECT_API_URL: f"{url}/api"} if url else {}):
        return make(config, pool=pool, schedules=times, scanned=options)
