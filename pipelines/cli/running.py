"""Run the compress flow from a terminal and show what came of it."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from rich.console import Console

from pipelines import environment
from pipelines.cli.app import display, out

if TYPE_CHECKING:
    from pipelines.config import CompressConfig
    from pipelines.steps.compare import Comparison

R = TypeVar("R")


def ensure_source(request: "CompressConfig") -> str:
    """The registered model's name; a recipe that says how to make the first version may have it made."""
    from pipelines.config import MODEL_URI

    if request.source.first is not None:
        from pipelines.first_version import first_version
        from pipelines.progress import shown_on

        with display() as shown, shown_on(shown):
            found = first_version(request)
        if found is not None:
            made = "trained and registered" if found.is_new else "found, trained earlier:"
            out.print(f"{made} {found.source.uri}, the source", soft_wrap=True)
    parsed = MODEL_URI.fullmatch(request.source.model)
    assert parsed is not None  # the configuration has checked it
    return parsed["name"]


def help_train(request: "CompressConfig") -> int:
    """On a further machine of several: train along with the first. How many candidates."""
    from pipelines.flows import stages

    parent = environment.work_folder()
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        return stages.help_train(stages.prepare(request, Path(folder)), stages.Listeners())


def run_flow(request: "CompressConfig", again: bool, prefect: "Prefect") -> "Comparison":
    """Check first, then run the flow."""
    earlier = _check(request)
    if earlier is not None and not again:
        out.print(f"this was done before, in run {earlier.run_id}; --again does it once more", soft_wrap=True)
        return earlier
    from pipelines.flows.compress import compress as flow

    return in_prefect(prefect, lambda: flow(request, again=again))


def in_prefect(prefect: "Prefect", run: Callable[[], R]) -> R:
    """Run a flow against that server, with its progress shown."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    from pipelines.progress import shown_on

    url = prefect.address()
    settings = {PREFECT_API_URL: url} if url else {}
    with display() as shown, shown_on(shown), temporary_settings(settings):
        try:
            return run()
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


def show(comparison: "Comparison") -> None:
    from pipelines.report import calibration_note, noise_note, notes_on_rows, nothing_passed, to_rich

    wide = out if out.is_terminal else Console(width=200, highlight=False)  # a log has no width
    wide.print(to_rich(comparison))
    for note in (calibration_note(comparison), noise_note(comparison), *notes_on_rows(comparison)):
        if note:
            out.print(note, soft_wrap=True)
    passed = [row for row in comparison.rows[1:] if row.passed]
    if comparison.challenger is None:
        out.print(nothing_passed(comparison), soft_wrap=True)
    else:
        rejected = [row for row in comparison.rows[1:] if row.version is not None and not row.passed]
        others = f", {len(rejected)} more as rejected" if rejected else ""
        out.print(f"{len(passed)} registered{others}; best: {comparison.challenger}", soft_wrap=True)
