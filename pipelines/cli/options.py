"""Options that several verbs take."""

from typing import Annotated

import typer

Again = Annotated[bool, typer.Option("--again", help="Compress even if a finished run has done exactly this.")]
Model = Annotated[str, typer.Argument(help="models:/name@alias or models:/name/3")]
Factory = Annotated[str | None, typer.Option(help="package.module:function, for a version stored without its factory.")]
Trust = Annotated[list[str] | None, typer.Option(help="An import path whose code may build the model.")]
TrackingUri = Annotated[str | None, typer.Option(help="Default: MLFLOW_TRACKING_URI, or the local store.")]
