"""`secateur scan`."""

from pathlib import Path
from typing import Annotated

import typer

from pipelines.cli.app import app, out

Models = Annotated[str, typer.Option(help="A glob of registered models' names.")]
Alias = Annotated[str | None, typer.Option(help="Versions that carry this alias; none if only --tag is given.")]
Tag = Annotated[str | None, typer.Option(help="Versions that carry this tag, as key=value.")]


@app.command()
def scan(
    recipe: Annotated[Path, typer.Argument(help="Each version found takes the place of its source.model.")],
    models: Models = "*",
    alias: Alias = None,
    tag: Tag = None,
    deployment: Annotated[str | None, typer.Option(help="compress/NAME: let it do the work, do not wait.")] = None,
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Start again what has failed there.")] = False,
    include_compressed: Annotated[
        bool, typer.Option("--include-compressed", help="Also versions that secateur made.")
    ] = False,
) -> None:
    """Compress every version that carries an alias (default: champion) or a tag and has not been compressed by RECIPE."""
    from rich.table import Table

    from pipelines.cli.running import Prefect, in_prefect
    from pipelines.config import ScanConfig, load_config, parse_section

    raw = {
        "recipe": load_config(recipe),
        "models": models,
        "alias": alias or (None if tag else "champion"),
        "tag": tag,
        "deployment": deployment,
        "retry_failed": retry_failed,
        "include_compressed": include_compressed,
    }
    config = parse_section(ScanConfig, raw, "the command line")
    with Prefect() as prefect:
        prefect.start()
        from pipelines.flows.scan import FAILED
        from pipelines.flows.scan import scan as flow

        found = in_prefect(prefect, lambda: flow(config))
    table = Table("version", "outcome", "detail")
    for item in found:
        table.add_row(item.uri, item.outcome, item.detail)
    out.print(table if found else "no version carries that mark")
    if any(item.outcome == FAILED for item in found):
        raise typer.Exit(1)
