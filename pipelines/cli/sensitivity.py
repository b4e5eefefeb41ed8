"""`secateur sensitivity`."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines import environment
from pipelines.cli.app import app, out
from pipelines.cli.app import display as bars_or_lines
from pipelines.cli.options import Factory, Model, TrackingUri, Trust

if TYPE_CHECKING:
    from pruning_core import Sensitivity


@app.command()
def sensitivity(
    model: Model,
    ratios: Annotated[str, typer.Option(help="Fractions of a group's channels to remove.")] = "0.25,0.5,0.75",
    samples: Annotated[
        int | None, typer.Option(min=2, help="Images to repair from, and to judge by. Default: 512, or all.")
    ] = None,
    minutes: Annotated[float, typer.Option(min=0, help="Stop after the point that is under way then.")] = 10,
    data: Annotated[str | None, typer.Option(help="A registered data set. Default: digits, or npz with a path.")] = None,
    data_path: Annotated[str | None, typer.Option(help="For npz: a file with the arrays x and y.")] = None,
    figure: Annotated[str, typer.Option(help="accuracy, loss, change (of the outputs) or kl.")] = "accuracy",
    criterion: Annotated[str, typer.Option(help="How channels are scored.")] = "auto",
    compensation: Annotated[str, typer.Option(help="How a cut is repaired: sequential, least_squares, none.")] = "auto",
    exclude: Annotated[list[str] | None, typer.Option(help="A name glob of layers to leave alone.")] = None,
    file: Annotated[Path, typer.Option("--out", help="Holds every point; a second call goes on from it.")] = Path(
        "sensitivity.json"
    ),
    factory: Factory = None,
    again: Annotated[bool, typer.Option("--again", help="Start anew, whatever the file holds.")] = False,
    trust: Trust = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Prune every group of a registered model alone, at some ratios, and see what each costs. Ctrl-C loses nothing."""
    import tempfile
    import time

    deadline = time.monotonic() + 60 * minutes
    with out.status("loading the model and the data") if out.is_terminal else contextlib.nullcontext():
        import pruning_core as pc
        from pipelines import registry
        from pipelines.architecture import load_module
        from pipelines.config import data_section, ratio_list
        from pipelines.data import load_data
        from pipelines.errors import ConfigError
        from pipelines.flows.stages import check_data_fits
        from pipelines.progress import display, shown_on
        from pipelines.steps.sensitivity import SensitivityRequest, Subject, measure_sensitivity

        if file.suffix == ".png" or not file.absolute().parent.is_dir():
            fix = "name a .json file in a folder that exists; the heat map goes next to it"
            raise ConfigError("the table cannot be written there", f"--out {file}", fix)
        spec = pc.PruningSpec(criterion=criterion, compensation=compensation, exclude=tuple(exclude or ()))
        request = SensitivityRequest(ratios=ratio_list(ratios, "--ratios"), samples=samples, figure=figure, spec=spec)
        images = load_data(data_section(data, data_path))
        store = registry.open_store(tracking_uri or environment.default_tracking_uri())
        source = registry.resolve(store, model)
        with tempfile.TemporaryDirectory() as folder:
            trusted = ("pipelines.models", *(trust or ()))
            reference = registry.fetch_model(store, source, Path(folder), trust=trusted, factory=factory)
            check_data_fits(reference, images)
            module = load_module(reference)
        subject = Subject.of(source.uri, module, images, request)
    so_far: list[Sensitivity] = []
    work = f"sensitivity of {source.uri}"

    def on_start(table: "Sensitivity") -> None:
        so_far.append(table)
        if table.rows:
            out.print(f"{file} holds {len(table.rows)} of {table.points} points; going on from there", soft_wrap=True)
        display().start(work, table.points)
        for _ in table.rows:
            display().advance(work)

    def on_row(table: "Sensitivity") -> None:
        so_far.append(table)
        display().advance(work)

    try:
        with bars_or_lines() as bars, shown_on(bars):
            measure_sensitivity(
                subject,
                module,
                images,
                request,
                file,
                again=again,
                on_start=on_start,
                on_row=on_row,
                stop=lambda: time.monotonic() > deadline,
            )
    finally:
        if so_far and so_far[-1].rows:
            _show_sensitivity(so_far[-1], source.uri, file)
    if not so_far[-1].is_complete:
        out.print(f"the {minutes:g} minutes are over; the same command goes on from here", soft_wrap=True)


def _show_sensitivity(table: "Sensitivity", title: str, file: Path) -> None:
    from pipelines.report import sensitivity_heat_map, sensitivity_table

    picture = file.with_suffix(".png")
    sensitivity_heat_map(table, title, picture)
    wide = out if out.is_terminal else Console(width=200, highlight=False)
    wide.print(sensitivity_table(table, title))
    out.print(f"{len(table.rows)} of {table.points} points in {file}, heat map in {picture}", soft_wrap=True)
