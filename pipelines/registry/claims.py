"""Who does a piece of work: one flow at a time, on whatever machine it runs.

Each registered model has a book (`books`) in which a flow writes its parent run under the key of the work: `key.1`,
`key.2`, ... Whoever writes number n first has it. A claim holds while its run is under way and gives signs of life.
"""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from mlflow.entities import LifecycleStage, Run, RunStatus
from mlflow.exceptions import MlflowException

from pipelines import lineage
from pipelines.errors import UnderWayError
from pipelines.registry.books import open_book, write_once
from pipelines.registry.patience import patiently
from pipelines.registry.store import Store

SIGN_EVERY = 60.0  # seconds
DEAD_AFTER = 15 * 60  # seconds without a sign: many signs, and the allowance for clocks that differ
UNSIGNED = 24 * 60 * 60  # a run that has never given one counts so long after its start
_UNSEEN = "it cannot be seen who is at this work"
WAIT = "wait until it has ended, then run again"


@dataclass(frozen=True, slots=True)
class Claims:
    """Those on one piece of work, as they were when it was looked up whether it had been done."""

    book: str  # the run
    key: str
    seen: int
    place: str  # of ours: there, nobody else is at this work


def read_claims(store: Store, name: str, key: str, place: str = "") -> Claims:
    """Raises UnderWayError where another flow is at this work; RegistryError."""
    where = f"{name} in {store.shown}"

    def read() -> tuple[Claims, Run | None]:
        book, entries = _entries(store, name, key)
        seen, holder = len(entries), None
        if entries:
            with contextlib.suppress(MlflowException):  # deleted for good
                holder = store.client.get_run(entries[-1])
        return Claims(book, key, seen, place), holder

    claims, holder = patiently(_UNSEEN, where, read)
    if holder is not None and is_under_way(holder) and holder.data.tags.get(lineage.WORK_PLACE) != (place or None):
        raise UnderWayError(
            "the same work is under way in another process", f"run {holder.info.run_id}, {_place_of(holder)}", WAIT
        )
    return claims


def claim(store: Store, claims: Claims, run_id: str) -> None:
    """Begin the work with this parent run, unless another has begun since. Raises UnderWayError, RegistryError."""
    number = f"{claims.key}.{claims.seen + 1}"

    def write() -> bool:
        give_sign(store, run_id)
        return write_once(store.client, claims.book, number, run_id)

    if not patiently("the work cannot be claimed", store.shown, write):
        params = store.client.get_run(claims.book).data.params
        raise UnderWayError("the same work was begun in another process at the same time", f"run {params[number]}", WAIT)


def check_claim(store: Store, name: str, key: str, run_id: str) -> None:
    """Is the work still this parent run's? A process that was cut off for long may have been taken for dead.

    Raises UnderWayError where another has begun the work since; RegistryError.
    """
    _, entries = patiently(_UNSEEN, f"{name} in {store.shown}", lambda: _entries(store, name, key))
    if entries and entries[-1] != run_id:
        raise UnderWayError(
            "another process has taken this work over, because this one had given no sign of life for too long",
            f"run {entries[-1]}",
            "nothing more is registered here: look at that run, and at what cut this machine off from MLflow",
        )


def _entries(store: Store, name: str, key: str) -> tuple[str, list[str]]:
    """The book of a registered model, and the parent runs that have claimed this work, one after the other."""
    book = open_book(store.client, f"work on\n{name}", f"work on {name}", {lineage.WORK_OF: name})
    params = store.client.get_run(book).data.params
    mine = {int(k.rpartition(".")[2]): run_id for k, run_id in params.items() if k.startswith(f"{key}.")}
    return book, [mine[number] for number in sorted(mine)]


def is_under_way(run: Run) -> bool:
    """Running, and not just left open by a process that died."""
    if run.info.status != RunStatus.to_string(RunStatus.RUNNING) or run.info.lifecycle_stage != LifecycleStage.ACTIVE:
        return False
    sign = run.data.tags.get(lineage.ALIVE)
    if sign is None or not sign.isdecimal():
        return bool(time.time() - run.info.start_time / 1000 < UNSIGNED)
    return time.time() - int(sign) < DEAD_AFTER


def give_sign(store: Store, run_id: str) -> None:
    store.client.set_tag(run_id, lineage.ALIVE, str(int(time.time())))


@contextlib.contextmanager
def alive(store: Store, run_id: str) -> Iterator[None]:
    """Signs of life, inside the `with`."""
    ended = threading.Event()

    def go_on() -> None:
        while not ended.wait(SIGN_EVERY):
            with contextlib.suppress(Exception):  # a store that is away for a while is no reason to stop
                give_sign(store, run_id)

    thread = threading.Thread(target=go_on, name="signs of life", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(timeout=5)


def _place_of(run: Run) -> str:
    return str(run.data.tags.get(lineage.WORK_PLACE, "at an unknown place"))
