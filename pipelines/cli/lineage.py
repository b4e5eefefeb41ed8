"""`secateur lineage`."""

from typing import Annotated

import typer

from pipelines import environment
from pipelines.cli.app import app
from pipelines.cli.options import Model, TrackingUri


@app.command()
def lineage(
    model: Model,
    as_json: Annotated[bool, typer.Option("--json", help="For other programs, with every metric.")] = False,
    tracking_uri: TrackingUri = None,
) -> None:
    """Show the chain from the original to MODEL: sources, plans, data, metrics and decisions, from the registry alone."""
    from pipelines import registry, report

    store = registry.open_store(tracking_uri or environment.default_tracking_uri())
    links = registry.ancestry(store, model)
    typer.echo(report.ancestry_json(links) if as_json else report.ancestry_text(links))
