"""`secateur demo`."""

import typer

from pipelines import environment
from pipelines.cli.app import app, display, out
from pipelines.cli.options import Again
from pipelines.cli.running import Prefect, run_flow, show


@app.command()
def demo(again: Again = False) -> None:
    """Train a small digits model, register it, compress it three ways, and compare."""
    from pipelines.demo import champion, demo_config
    from pipelines.progress import shown_on

    request = demo_config()
    is_first = not (environment.data_folder() / "mlflow.db").exists()
    with Prefect() as prefect:
        if is_first or again:
            prefect.start()  # meanwhile, the model is trained
        with display() as shown, shown_on(shown):
            model = champion(request)
        made = "trained and registered" if model.is_new else "found, trained earlier:"
        out.print(f"{made} {model.source.uri}, alias champion")
        comparison = run_flow(request, again, prefect)
    show(comparison)
    out.print(
        "\n`make ui` (or `secateur ui`) serves what was just made:\n\n"
        f"    MLflow UI   http://127.0.0.1:5000/#/models/{model.source.name}\n"
        "    Prefect UI  http://127.0.0.1:4200/runs\n"
    )
    if comparison.failures:
        raise typer.Exit(1)
