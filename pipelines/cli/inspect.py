"""`secateur inspect`."""

from pathlib import Path

import typer

from pipelines import environment
from pipelines.cli.app import app
from pipelines.cli.options import Factory, Model, TrackingUri, Trust


@app.command()
def inspect(
    model: Model,
    factory: Factory = None,
    trust: Trust = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Show the layers of a registered model: which can be pruned, which cannot, and why."""
    import tempfile

    import torch

    import pruning_core as pc
    from pipelines import registry
    from pipelines.architecture import load_module

    store = registry.open_store(tracking_uri or environment.default_tracking_uri())
    source = registry.resolve(store, model)
    with tempfile.TemporaryDirectory() as folder:
        trusted = ("pipelines.models", *(trust or ()))
        module = load_module(registry.fetch_model(store, source, Path(folder), trust=trusted, factory=factory))
        example = torch.zeros(1, *registry.input_shape(store, source))
        typer.echo(f"{source.uri}\n{pc.inspect(module, example)}")
