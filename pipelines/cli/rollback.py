"""`secateur rollback`."""

from typing import Annotated

import typer

from pipelines import environment
from pipelines.cli.app import app, out
from pipelines.cli.options import TrackingUri


@app.command()
def rollback(
    name: Annotated[str, typer.Argument(help="The registered model.")],
    why: Annotated[str, typer.Option(help="Is written to both versions.")] = "",
    champion: Annotated[str, typer.Option(help="The alias.")] = "champion",
    previous: Annotated[str, typer.Option(help="The alias of the one before.")] = "previous",
    tracking_uri: TrackingUri = None,
) -> None:
    """Make the champion before the last promotion the champion again. Once more: the one before that."""
    from pipelines import registry
    from pipelines.config import MODEL_URI

    store = registry.open_store(tracking_uri or environment.default_tracking_uri())
    aliases = registry.Aliases(champion=champion, previous=previous)
    name = parsed["name"] if (parsed := MODEL_URI.fullmatch(name)) else name.removeprefix("models:/")
    before, now = registry.roll_back(store, name, aliases, by=environment.user(), why=why)
    out.print(f"version {now} is {champion} of {name} again, version {before} no longer")
