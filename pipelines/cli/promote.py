"""`secateur promote`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines import environment
from pipelines.cli.app import app, out
from pipelines.cli.options import Model, TrackingUri, Trust


@app.command()
def promote(
    model: Model,
    recipe: Annotated[
        Path | None,
        typer.Argument(help="Judge by this recipe; default: the one that is stored with the version."),
    ] = None,
    approve: Annotated[bool, typer.Option("--approve", help="Give the approval that promotion.approval asks for.")] = False,
    why: Annotated[str, typer.Option(help="Is written to the version.")] = "",
    trust: Trust = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Make MODEL the champion, if it passes the gate against the champion of today."""
    from pipelines.cli.running import Prefect, in_prefect
    from pipelines.config import PromoteConfig, load_config

    uri = tracking_uri or environment.default_tracking_uri()
    if recipe is not None:
        config = PromoteConfig.of(load_config(recipe), model)
    else:
        from pipelines.flows.trial import config_for

        config = config_for(model, uri, ("pipelines.models", *(trust or ())))
    user = environment.user()
    with Prefect() as prefect:
        prefect.start()
        from pipelines.flows.promote import promote as flow

        done = in_prefect(prefect, lambda: flow(config, approved_by=user if approve else None, by=user, why=why))
    before = f" (before: version {done.before})" if done.before else ""
    out.print(f"{done.name} version {done.version} is {config.promotion.champion} now{before}", soft_wrap=True)
    out.print(done.summary, soft_wrap=True)
    if done.copied_to:
        out.print(f"copied to {done.copied_to}", soft_wrap=True)
