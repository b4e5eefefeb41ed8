"""`secateur recommend`."""

from typing import Annotated

import typer

from pipelines import environment
from pipelines.cli.app import app
from pipelines.cli.options import Factory, Model, TrackingUri, Trust


@app.command()
def recommend(
    model: Model,
    ratio: Annotated[float | None, typer.Option(help="Fraction of the channels to remove. Default: 0.5.")] = None,
    budget: Annotated[
        list[str] | None,
        typer.Option(help="Instead of a ratio: macs=2x, params=1e6, size_mb=3 or latency_ms=5; may be given twice."),
    ] = None,
    criterion: Annotated[str, typer.Option(help="How channels are scored; auto: reconstruction with --data.")] = "auto",
    allocator: Annotated[
        str | None, typer.Option(help="How the ratio is spread. Default: slamp, or budget where one is given.")
    ] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="A name glob of layers to leave alone.")] = None,
    data: Annotated[
        str | None, typer.Option(help="A registered data set, to score with; its training split is used.")
    ] = None,
    data_path: Annotated[str | None, typer.Option(help="For npz: a file with the arrays x and y.")] = None,
    samples: Annotated[int, typer.Option(min=1, help="Images to score with, at most.")] = 1024,
    batch_size: Annotated[int, typer.Option(min=1, help="Images per call, where latency_ms is asked for.")] = 64,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads, where latency_ms is asked for.")] = 1,
    factory: Factory = None,
    trust: Trust = None,
    tracking_uri: TrackingUri = None,
) -> None:
    """Print the ratio of every layer as YAML, before anything is cut, and a table beside it on stderr.

    Edit the file and name it in a recipe: `secateur recommend models:/m@champion --ratio 0.5 > ratios.yaml`, then
    `candidates: [{ratios_from: ratios.yaml}]` and `secateur compress recipe.yaml`.
    """
    from pipelines.config import Calibration, Candidate, Measure, data_section, parse_budget, parse_section
    from pipelines.flows.stages import recommend as recommended
    from pipelines.report import recommendation_yaml

    targets = parse_budget(budget or ())
    wanted: dict[str, object] = {"ratio": 0.5 if ratio is None and not targets else ratio, "budget": targets}
    wanted |= {"criterion": criterion, "allocator": allocator or ("auto" if targets else "slamp")}
    wanted |= {"exclude": tuple(exclude or ())}
    candidate = parse_section(Candidate, wanted, "the command line")
    section = data_section(data, data_path) if data or data_path else None
    uri, table = recommended(
        model,
        candidate,
        section,
        Calibration(samples=samples),
        Measure(batch_sizes=(batch_size,), thread_counts=(threads,)),
        tracking_uri=tracking_uri or environment.default_tracking_uri(),
        trust=("pipelines.models", *(trust or ())),
        factory=factory,
    )
    typer.echo(f"{uri}\n{table}", err=True)
    typer.echo(recommendation_yaml(table, uri, candidate.asked), nl=False)
