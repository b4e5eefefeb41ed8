"""The application, what its verbs share, and how it ends."""

# Heavy imports stand inside the functions, here and in every verb: `secateur --help` must not wait for torch.
import contextlib
import importlib.metadata
import logging
import os
import signal
import sys
import warnings
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from pipelines import environment
from pipelines.errors import SecateurError, is_interrupt

if TYPE_CHECKING:
    from pipelines.progress import Display


app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Smaller, faster versions of a model in your MLflow registry, registered beside it.",
)
out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

INTERRUPTED = 130


class WarningLines(logging.Handler):
    """What went otherwise than asked and ends nothing: an image that was skipped, a batch that was halved."""

    def emit(self, record: logging.LogRecord) -> None:
        err.print(f"warning: {record.getMessage()}", markup=False, soft_wrap=True)


TOLD = WarningLines(logging.WARNING)


def main() -> None:
    """The entry point: every failure that we know becomes one readable message."""
    environment.prepare()
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # trusted factories of the project one stands in; last, so that it shadows nothing
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # other people's deprecations are no business of the user
    logging.getLogger().addHandler(logging.NullHandler())  # or a library installs one that prints everything
    logging.getLogger("pipelines").addHandler(TOLD)
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


def display() -> "contextlib.AbstractContextManager[Display]":
    from pipelines.display import Bars, Lines

    return Bars(err) if err.is_terminal else Lines(err)


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
