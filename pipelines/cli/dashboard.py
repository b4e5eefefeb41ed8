"""`secateur dashboard`."""

from typing import Annotated

import typer

from pipelines import environment
from pipelines.cli.app import app, out
from pipelines.cli.options import TrackingUri


@app.command()
def dashboard(
    model: Annotated[str, typer.Argument(help="The registered model's name, or models:/name/...")],
    ui: Annotated[str, typer.Option(help="Where the MLflow UI answers.")] = "http://127.0.0.1:5000",
    tracking_uri: TrackingUri = None,
) -> None:
    """Write the dashboards of a model's compressions into MLflow and print their addresses. Twice changes nothing."""
    from pipelines import registry
    from pipelines.config import MODEL_URI

    parsed = MODEL_URI.fullmatch(model)
    name = parsed["name"] if parsed else model.removeprefix("models:/")
    store = registry.open_store(tracking_uri or environment.default_tracking_uri())
    for experiment_id in registry.experiments_with_compressions(store, name):
        for title, path in registry.publish_dashboard(store, name, experiment_id).items():
            out.print(f"{title}\n    {ui.rstrip('/')}/{path}", soft_wrap=True)
