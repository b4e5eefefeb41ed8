"""Who may move an alias: one ledger per registered model, in MLflow itself, so that all who share a registry share it.

MLflow has no lock and no compare-and-set, but it has two things that are written once: a run's parameter (a second value
for the same key is refused, by the primary key of the table; the same value again is accepted, so a repeated request does
no harm) and an experiment's name with the tags it is made with. The ledger is a run whose parameters are its entries, `1`,
`2`, ...; whoever writes entry n first has it, everyone else is told who. An entry is open until its outcome is written,
as the parameter `n.outcome`, and while the last entry is open nobody gets the next. An entry whose holder died is settled
by the next who comes after its lease has run out (`champion.standing`); a holder moves no alias after half of it. That half
is the allowance for clocks that differ, and for a request that is under way. The lease is the holder's, so it stands in the
entry: who breaks it may be another program with other settings.

The runs of the ledgers are found through an index run, and that through the tag of an experiment that is made together
with it and hidden at once. `mlflow gc` may take that experiment away; the index run is then found by its own tag.
"""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipelines import lineage
from pipelines.errors import PromotionError, RegistryError
from pipelines.registry.store import Store, mlflow_errors

LEDGERS = "secateur promotions"  # the experiment in which the ledgers' runs are seen
INDEX = "secateur promotions (index)"  # made once, hidden, its tag names the index run
KEPT = 1000  # characters of a reason
ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One decision to move the champion of a registered model."""

    action: str  # promote | rollback
    champion: int | None  # before
    previous: int | None  # before
    to: int | None  # the version that becomes champion
    by: str
    why: str
    at: str  # ISO 8601, UTC
    token: str  # tells two otherwise equal entries apart
    lease_seconds: float = 1800
    number: int = 0
    outcome: str | None = None  # None: under way

    @property
    def age(self) -> timedelta:
        return datetime.now(UTC) - datetime.fromisoformat(self.at)

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.lease_seconds)

    @property
    def is_dead(self) -> bool:
        """Its holder has said nothing for longer than it was allowed to."""
        return self.outcome is None and self.age >= self.lease


@dataclass(frozen=True, slots=True)
class Ledger:
    """The decisions about one registered model, by the run that holds them."""

    store: Store
    name: str
    run_id: str


def new_entry(
    action: str, champion: int | None, previous: int | None, to: int | None, by: str, why: str, lease: timedelta
) -> Entry:
    return Entry(
        action=action,
        champion=champion,
        previous=previous,
        to=to,
        by=by[:200],
        why=why[:KEPT],
        at=datetime.now(UTC).isoformat(timespec="seconds"),
        token=uuid4().hex,
        lease_seconds=lease.total_seconds(),
    )


def open_ledger(store: Store, name: str) -> Ledger:
    """The ledger of a registered model; made if there is none. However many ask at once, all get the same."""
    with mlflow_errors("the ledger of the promotions cannot be opened", f"{name} in {store.shown}"):
        client = store.client
        experiment_id = _experiment(client)
        index = _index(client, experiment_id)
        key = hashlib.sha256(name.encode()).hexdigest()[:32]  # a parameter's name takes fewer characters than a model's
        known = client.get_run(index).data.params.get(key)
        if known is not None:
            return Ledger(store, name, known)
        mine = _run(client, experiment_id, f"promotions of {name}", {lineage.LEDGER_OF: name})
        if _write_once(client, index, key, mine):
            return Ledger(store, name, mine)
        client.delete_run(mine)
        return Ledger(store, name, client.get_run(index).data.params[key])


def read(ledger: Ledger) -> tuple[Entry, ...]:
    """All entries, the first first."""
    with mlflow_errors("the ledger of the promotions cannot be read", ledger.name):
        params = ledger.store.client.get_run(ledger.run_id).data.params
    numbers = sorted(int(key) for key in params if key.isdecimal())
    return tuple(Entry(**json.loads(params[str(n)]), number=n, outcome=params.get(f"{n}.outcome")) for n in numbers)


def claim(ledger: Ledger, entry: Entry, seen: int) -> Entry:
    """The next entry, if nobody has written one since `seen` of them were read. Raises PromotionError otherwise."""
    entries = read(ledger)
    if entries and entries[-1].outcome is None:
        raise _under_way(ledger, entries[-1])
    number = (entries[-1].number if entries else 0) + 1
    if len(entries) != seen:
        raise _told(ledger, entries[-1])
    text = json.dumps({k: v for k, v in asdict(entry).items() if k not in ("number", "outcome")}, ensure_ascii=False)
    with mlflow_errors("the promotion cannot be claimed", ledger.name):
        won = _write_once(ledger.store.client, ledger.run_id, str(number), text)
    if not won:
        raise _told(ledger, read(ledger)[-1])
    return Entry(**json.loads(text), number=number)


def close(ledger: Ledger, entry: Entry, outcome: str) -> bool:
    """Write how it ended. False: another has declared this entry abandoned meanwhile."""
    with mlflow_errors("the outcome of the promotion cannot be written", ledger.name):
        return _write_once(ledger.store.client, ledger.run_id, f"{entry.number}.outcome", outcome[:KEPT])


def check_in_time(ledger: Ledger, entry: Entry) -> None:
    """Before each move of an alias: may the holder of this entry still do it? Raises PromotionError."""
    if entry.age > entry.lease / 2:
        close(ledger, entry, "given up: it took too long")
        raise PromotionError(
            f"moving the alias took more than half of the lease of {entry.lease}, so it was given up",
            f"entry {entry.number} of the promotions of {ledger.name}",
            "run it again; if the registry is that slow, raise promotion.lease_minutes",
        )


def _under_way(ledger: Ledger, last: Entry) -> PromotionError:
    return PromotionError(
        f"another {last.action} is under way: version {last.to}, by {last.by}, since {last.at}",
        f"entry {last.number} of the promotions of {ledger.name}",
        f"wait for it to end, then run again; if its process has died, its claim ends {last.lease} after it began",
    )


def _told(ledger: Ledger, winner: Entry) -> PromotionError:
    return PromotionError(
        f"another {winner.action} won: version {winner.to}, by {winner.by}, at {winner.at} ({winner.why})",
        f"entry {winner.number} of the promotions of {ledger.name}",
        "look at the champion as it is now, then decide again",
    )


def _write_once(client: MlflowClient, run_id: str, key: str, value: str) -> bool:
    """Did this value get there first? Also when a request was repeated after its answer was lost."""
    try:
        client.log_param(run_id, key, value)
    except MlflowException as exc:
        stands = client.get_run(run_id).data.params.get(key)
        if stands is None:
            raise RegistryError(
                f"the ledger cannot be written: {exc}",
                f"run {run_id}",
                f"restore the run in the experiment {LEDGERS!r} if it was deleted, then run again",
            ) from exc
        return bool(stands == value)
    return True


def _experiment(client: MlflowClient) -> str:
    if client.get_experiment_by_name(LEDGERS) is None:
        with contextlib.suppress(MlflowException):  # another was faster
            return str(client.create_experiment(LEDGERS))
    experiment = _existing(client, LEDGERS)
    if experiment.lifecycle_stage == "deleted":
        client.restore_experiment(experiment.experiment_id)
    return str(experiment.experiment_id)


def _existing(client: MlflowClient, name: str) -> Experiment:
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        raise RegistryError(f"the experiment {name!r} could not be made", "MLflow", "run again", retryable=True)
    return experiment


def _index(client: MlflowClient, experiment_id: str) -> str:
    made = client.get_experiment_by_name(INDEX)
    if made is not None:
        return str(made.tags[lineage.LEDGER_INDEX])
    found = client.search_runs(
        [experiment_id], f"tags.`{lineage.LEDGER_INDEX}` = 'yes'", ViewType.ACTIVE_ONLY, 1, ["attributes.start_time ASC"]
    )
    mine = found[0].info.run_id if found else _run(client, experiment_id, INDEX, {lineage.LEDGER_INDEX: "yes"})
    try:
        pointer = client.create_experiment(INDEX, tags={lineage.LEDGER_INDEX: mine})
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        elected = str(_existing(client, INDEX).tags[lineage.LEDGER_INDEX])
        if elected != mine and not found:
            client.delete_run(mine)
        return elected
    client.delete_experiment(pointer)  # its name stays taken, its tags can be read, and the UI does not show it
    return str(mine)


def _run(client: MlflowClient, experiment_id: str, name: str, tags: Mapping[str, str]) -> str:
    run = client.create_run(experiment_id, tags={"mlflow.source.name": "secateur", **tags}, run_name=name)
    client.set_terminated(run.info.run_id)  # parameters can be added all the same
    return str(run.info.run_id)
