"""`secateur compress`."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app, out
from pipelines.cli.options import Again
from pipelines.cli.running import Prefect, ensure_source, help_train, run_flow, show


@app.command()
def compress(
    config: Annotated[Path, typer.Argument(help="The recipe: a YAML file, see pipelines/recipes/digits.yaml.")],
    again: Again = False,
) -> None:
    """Compress a registered model as CONFIG says and register what passes.

    Killed or interrupted, the same command goes on where it was.
    """
    with out.status("checking the configuration") if out.is_terminal else contextlib.nullcontext():
        from pipelines.config import load_config
        from pipelines.steps.finetune import is_helping

        request = load_config(config)
    if is_helping(request.finetune.hardware):
        trained = help_train(request)
        out.print(f"candidates trained along: {trained}; the first machine judges and registers them", soft_wrap=True)
        return
    with Prefect() as prefect:
        prefect.start()  # meanwhile, the request is checked
        ensure_source(request)
        comparison = run_flow(request, again, prefect)
    show(comparison)
    if comparison.failures:
        raise typer.Exit(1)
