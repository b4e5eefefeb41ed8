"""Who may move an alias: one ledger per registered model, a book that is written once (`books`).

The entries are `1`, `2`, ...; whoever writes entry n first has it, everyone else is told who. An entry is open until its
outcome is written, as the parameter `n.outcome`, and while the last entry is open nobody gets the next. An entry whose
holder died is settled by the next who comes after its lease has run out (`champion.standing`); a holder moves no alias
after half of it. That half is the allowance for clocks that differ, and for a request that is under way. The lease is the
holder's, so it stands in the entry: who breaks it may be another program with other settings.
"""

import json
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from uuid import uuid4

from pipelines import lineage
from pipelines.errors import PromotionError
from pipelines.registry.books import open_book, write_once
from pipelines.registry.store import Store, mlflow_errors

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
        run_id = open_book(store.client, name, f"promotions of {name}", {lineage.LEDGER_OF: name})
    return Ledger(store, name, run_id)


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
        won = write_once(ledger.store.client, ledger.run_id, str(number), text)
    if not won:
        raise _told(ledger, read(ledger)[-1])
    return Entry(**json.loads(text), number=number)


def close(ledger: Ledger, entry: Entry, outcome: str) -> bool:
    """Write how it ended. False: another has declared this entry abandoned meanwhile."""
    with mlflow_errors("the outcome of the promotion cannot be written", ledger.name):
        return write_once(ledger.store.client, ledger.run_id, f"{entry.number}.outcome", outcome[:KEPT])


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
