"""`secateur demo`."""

import typer

from pipelines import environment
from pipelines.cli.app import app, out
from pipelines.cli.options import Again
from pipelines.cli.running import Prefect, ensure_source, run_flow, show


@app.command()
def demo(again: Again = False) -> None:
    """Train a small digits model, register it, compress it three ways, and compare."""
    from pipelines.demo import demo_config

    request = demo_config()
    is_first = not (environment.data_folder() / "mlflow.db").exists()
    with Prefect() as prefect:
        if is_first or again:
            prefect.start()  # meanwhile, the model is trained
        name = ensure_source(request)
        comparison = run_flow(request, again, prefect)
    show(comparison)
    out.print(
        "\n`make ui` (or `secateur ui`) serves what was just made:\n\n"
        f"    MLflow UI   http://127.0.0.1:5000/#/models/{name}\n"
        "    Prefect UI  http://127.0.0.1:4200/runs\n"
    )
    if comparison.failures:
        raise typer.Exit(1)
