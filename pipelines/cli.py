"""The command line. Exit status: 0 done, 1 something broke, 2 the request is wrong, 130 Ctrl-C."""

# Heavy imports stand inside the functions: `secateur --help` must not wait for torch.
import contextlib
import importlib.metadata
import logging
import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines import environment
from pipelines.errors import SecateurError, is_interrupt

if TYPE_CHECKING:
    from pipelines.config import CompressConfig
    from pipelines.progress import Display
    from pipelines.steps.compare import Comparison
    from pruning_core import Sensitivity

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Smaller, faster versions of a model in your MLflow registry, registered beside it.",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

INTERRUPTED = 130
Again = Annotated[bool, typer.Option("--again", help="Compress even if a finished run has done exactly this.")]


def main() -> None:
    """The entry point: every failure that we know becomes one readable message."""
    environment.prepare()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # trusted factories of the project one stands in; last, so that it shadows nothing
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # other people's deprecations are no business of the user
    logging.getLogger().addHandler(logging.NullHandler())  # or a library installs one that prints everything
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()  # ends in SystemExit, also after a mistake on the command line and after Ctrl-C
    except SystemExit as exc:
        status = exc.code if isinstance(exc.code, int) else 0
    except BaseException as exc:
        status = _status_of(exc)
    if status == INTERRUPTED:
        _complain("stopped; runs that were open are marked as killed")
    sys.exit(status)


def _terminate(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt  # SIGTERM ends like Ctrl-C: runs are closed, servers stopped


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"secateur {importlib.metadata.version('secateur')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say it and stop.")] = False,
) -> None: ...


@app.command()
def compress(
    config: Annotated[Path, typer.Argument(help="The recipe: a YAML file, see pipelines/recipes/digits.yaml.")],
    again: Again = False,
) -> None:
    """Compress a registered model as CONFIG says and register what passes."""
    with out.status("checking the configuration") if out.is_terminal else contextlib.nullcontext():
        from pipelines.config import load_config

        request = load_config(config)
    with Prefect() as prefect:
        prefect.start()  # meanwhile, the request is checked
        comparison = _run_flow(request, again, prefect)
    _show(comparison)
    if comparison.failures:
        raise typer.Exit(1)


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
        with _display() as display, shown_on(display):
            model = champion(request)
        made = "trained and registered" if model.is_new else "found, trained earlier:"
        out.print(f"{made} {model.source.uri}, alias champion")
        comparison = _run_flow(request, again, prefect)
    _show(comparison)
    out.print(
        "\n`make ui` (or `secateur ui`) serves what was just made:\n\n"
        f"    MLflow UI   http://127.0.0.1:5000/#/models/{model.source.name}\n"
        "    Prefect UI  http://127.0.0.1:4200/runs\n"
    )
    if comparison.failures:
        raise typer.Exit(1)


@app.command()
def inspect(
    model: Annotated[str, typer.Argument(help="models:/name@alias or models:/name/3")],
    trust: Annotated[list[str] | None, typer.Option(help="An import path whose code may build the model.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="Default: MLFLOW_TRACKING_URI, or the local store.")] = None,
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
        module = load_module(registry.fetch_model(store, source, Path(folder), trust=trusted))
        example = torch.zeros(1, *registry.input_shape(store, source))
        typer.echo(f"{source.uri}\n{pc.inspect(module, example)}")


@app.command()
def sensitivity(
    model: Annotated[str, typer.Argument(help="models:/name@alias or models:/name/3")],
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
    again: Annotated[bool, typer.Option("--again", help="Start anew, whatever the file holds.")] = False,
    trust: Annotated[list[str] | None, typer.Option(help="An import path whose code may build the model.")] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="Default: MLFLOW_TRACKING_URI, or the local store.")] = None,
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
            reference = registry.fetch_model(store, source, Path(folder), trust=trusted)
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
        with _display() as bars, shown_on(bars):
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


@app.command()
def ui(
    mlflow_port: Annotated[int, typer.Option(help="Another one is taken if this is in use.")] = 5000,
    prefect_port: Annotated[int, typer.Option(help="Another one is taken if this is in use.")] = 4200,
) -> None:
    """Serve the MLflow UI and the Prefect UI of the local store, on this machine only, until Ctrl-C."""
    import time

    from pipelines.servers import announced, free_port, mlflow_server, prefect_server

    with (
        mlflow_server(environment.default_tracking_uri(), free_port(mlflow_port)) as mlflow,
        prefect_server(free_port(prefect_port)) as prefect,
    ):
        out.print("starting both servers, about half a minute ...")
        mlflow.ready()
        prefect.ready()
        out.print(f"MLflow UI   {mlflow.url}/#/models\nPrefect UI  {prefect.url}/runs\nCtrl-C stops both")
        with announced(prefect), contextlib.suppress(KeyboardInterrupt):
            while mlflow.process.poll() is None and prefect.process.poll() is None:
                time.sleep(0.5)


def _run_flow(request: "CompressConfig", again: bool, prefect: "Prefect") -> "Comparison":
    """Check first, then run the flow."""
    earlier = _check(request)
    if earlier is not None and not again:
        out.print(f"this was done before, in run {earlier.run_id}; --again does it once more", soft_wrap=True)
        return earlier
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipelines.flows.compress import compress as flow
    from pipelines.progress import shown_on

    url = prefect.address()
    settings = {PREFECT_API_URL: url} if url else {}
    with _display() as display, shown_on(display), temporary_settings(settings):
        try:
            return flow(request, again=again)
        finally:
            _flush_prefect()


def _flush_prefect() -> None:
    """Prefect sends logs and events in the background; a server of ours must not stop before they have arrived."""
    from prefect.events.worker import EventsWorker
    from prefect.logging.handlers import APILogHandler

    APILogHandler().flush()
    EventsWorker.drain_all(timeout=10)


def _check(request: "CompressConfig") -> "Comparison | None":
    """What the flow will refuse is refused before the wait for its server; also finds work that is done already."""
    from pipelines.flows import stages

    folder = environment.work_folder() / f"check-{os.getpid()}"
    try:
        return stages.earlier_result(stages.prepare(request, folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Prefect(contextlib.ExitStack):
    """The Prefect server that a flow reports to: the user's own, the one that `secateur ui` runs, or one of ours.

    Ours lasts as long as the `with` and writes to a file, so that the run can be seen later.
    """

    def __init__(self) -> None:
        super().__init__()
        self._address: Callable[[], str | None] | None = None

    def start(self) -> None:
        """Begin to start a server if one is needed, without waiting for it."""
        from pipelines.servers import announced_prefect, prefect_server

        if self._address is not None:
            return
        if environment.has_own_prefect_server():
            self._address = lambda: None  # Prefect itself knows where
        elif (url := announced_prefect()) is not None:
            self._address = lambda: f"{url}/api"
        else:
            server = self.enter_context(prefect_server())
            self._address = lambda: f"{server.ready()}/api"

    def address(self) -> str | None:
        """Of the API, once it answers."""
        self.start()
        return self._address() if self._address else None


def _display() -> "contextlib.AbstractContextManager[Display]":
    from pipelines.display import Bars, Lines

    return Bars(err) if err.is_terminal else Lines(err)


def _show(comparison: "Comparison") -> None:
    from pipelines.report import to_rich

    wide = out if out.is_terminal else Console(width=200, highlight=False)  # a log has no width
    wide.print(to_rich(comparison))
    passed = [row for row in comparison.rows[1:] if row.passed]
    if comparison.challenger is None:
        out.print("no candidate passed the gate; nothing was registered")
    else:
        out.print(f"{len(passed)} registered; best: {comparison.challenger}")


def _status_of(exc: BaseException) -> int:
    """The exit status of a failure, after saying what it was. The engine's errors have the same three parts as ours."""
    if is_interrupt(exc):
        return INTERRUPTED
    if isinstance(exc, SecateurError):
        _complain(str(exc))
        return exc.exit_status
    from pruning_core import PruningError

    if isinstance(exc, PruningError):
        _complain(str(exc))
        return 2
    err.print_exception()
    _complain(f"this is a bug in secateur: {exc!r}")
    return 1


def _complain(message: str) -> None:
    err.print(f"error: {message}", style="red" if err.is_terminal else "", markup=False, soft_wrap=True)
