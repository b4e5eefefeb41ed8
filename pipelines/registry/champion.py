"""Move `champion` from one version to another, and back: one at a time, checked afterwards, and written down."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from mlflow.exceptions import MlflowException

from pipelines.errors import PromotionError
from pipelines.registry.decisions import decide, record
from pipelines.registry.ledger import Entry, Ledger, check_in_time, claim, close, new_entry, open_ledger, read
from pipelines.registry.store import Store, mlflow_errors

ROLLED_BACK = "rolled back"
PROMOTED = "promoted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Aliases:
    """The names of the two aliases, and how long a promotion may hold the model."""

    champion: str = "champion"
    previous: str = "previous"
    lease: timedelta = timedelta(minutes=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What a registered model's aliases mean now, and how many decisions there have been: what a promotion is based on."""

    ledger: Ledger
    champion: int | None
    previous: int | None
    seen: int  # entries in the ledger

    @property
    def name(self) -> str:
        return self.ledger.name


def standing(store: Store, name: str, aliases: Aliases) -> Standing:
    """Read before anything is compared. Raises RegistryError."""
    ledger = open_ledger(store, name)
    seen = len(read(ledger))  # first: a promotion between the two reads must not go unnoticed
    champion, previous = _read(store, name, aliases)
    return Standing(ledger=ledger, champion=champion, previous=previous, seen=seen)


def promote_version(
    before: Standing, version: int, aliases: Aliases, *, by: str, why: str, verify: Callable[[], None] = lambda: None
) -> None:
    """Make `version` the champion that it was compared for, or raise PromotionError and leave everything as it was.

    `verify` is called after the move; if it raises, the aliases go back to where they were, and the error goes on.
    """
    entry = new_entry("promote", before.champion, before.previous, version, by, why)
    entry = claim(before.ledger, entry, before.seen, aliases.lease)
    store, name = before.ledger.store, before.name
    try:
        _require_unmoved(before, aliases)
        _move(before.ledger, entry, aliases, champion=version, previous=before.champion or before.previous)
    except BaseException as exc:
        close(before.ledger, entry, f"not done: {_reason(exc)}")
        raise
    try:
        verify()
    except BaseException as exc:
        _take_back(before, entry, aliases, _reason(exc))
        raise
    close(before.ledger, entry, PROMOTED)
    record(store, name, version, decide(f"made {aliases.champion}", by, why))
    if before.champion is not None:
        text = f"Version {version} is {aliases.champion} now. {why}"
        record(store, name, before.champion, decide(f"made {aliases.previous}", by, text))


def roll_back(store: Store, name: str, aliases: Aliases, *, by: str, why: str) -> tuple[int | None, int]:
    """Undo the last promotion: (the version that was champion, the one that is now). Raises PromotionError.

    Called again, it undoes the one before. Without a promotion in the ledger, it is the alias `previous` that counts.
    """
    before = standing(store, name, aliases)
    undone = _last_promotion(read(before.ledger), before.champion)
    to = undone.champion if undone else before.previous
    if to is None or to == before.champion:
        raise PromotionError(
            f"there is nothing to go back to: {name!r} has had no other champion",
            f"aliases {aliases.champion!r} and {aliases.previous!r} in {store.uri}",
            f"set the alias {aliases.champion!r} by hand",
        )
    entry = new_entry("rollback", before.champion, before.previous, to, by, why)
    entry = claim(before.ledger, entry, before.seen, aliases.lease)
    try:
        _require_unmoved(before, aliases)
        _move(before.ledger, entry, aliases, champion=to, previous=undone.previous if undone else None)
    except BaseException as exc:
        close(before.ledger, entry, f"not done: {_reason(exc)}")
        raise
    close(before.ledger, entry, ROLLED_BACK)
    if before.champion is not None:
        record(store, name, before.champion, decide(ROLLED_BACK, by, why))
    record(store, name, to, decide(f"made {aliases.champion} again", by, why))
    return before.champion, to


def _last_promotion(entries: tuple[Entry, ...], champion: int | None) -> Entry | None:
    """The promotion that made `champion` what it is, and that has not been undone."""
    standing: list[Entry] = []
    for entry in entries:
        if entry.action == "promote" and entry.outcome == PROMOTED:
            standing.append(entry)
        elif entry.action == "rollback" and entry.outcome == ROLLED_BACK and standing:
            standing.pop()
    return standing[-1] if standing and standing[-1].to == champion and standing[-1].champion is not None else None


def _take_back(before: Standing, entry: Entry, aliases: Aliases, reason: str) -> None:
    """After a failed check. If somebody has moved the champion meanwhile, that stands."""
    store, name = before.ledger.store, before.name
    if _read(store, name, aliases)[0] == entry.to:
        _set(store, name, aliases.champion, before.champion)
        _set(store, name, aliases.previous, before.previous)
    close(before.ledger, entry, f"{ROLLED_BACK}: {reason}")
    assert entry.to is not None
    record(store, name, entry.to, decide(ROLLED_BACK, "the check after the promotion", reason))


def _require_unmoved(before: Standing, aliases: Aliases) -> None:
    """Somebody who does not ask us, in MLflow's UI for instance, may have moved the alias since the comparison."""
    now = _read(before.ledger.store, before.name, aliases)[0]
    if now != before.champion:
        raise PromotionError(
            f"the alias {aliases.champion!r} has been moved from {_named(before.champion)} to {_named(now)} meanwhile",
            f"{before.name} in {before.ledger.store.uri}",
            "decide again, against the champion as it is now",
        )


def _move(ledger: Ledger, entry: Entry, aliases: Aliases, *, champion: int | None, previous: int | None) -> None:
    """`champion` last, in one step: whoever reads it sees the old or the new one, never none."""
    check_in_time(ledger, entry, aliases.lease)
    _set(ledger.store, ledger.name, aliases.previous, previous)
    _set(ledger.store, ledger.name, aliases.champion, champion)


def _set(store: Store, name: str, alias: str, version: int | None) -> None:
    with mlflow_errors(f"the alias {alias!r} cannot be moved", name):
        if version is None:
            store.client.delete_registered_model_alias(name, alias)
        else:
            store.client.set_registered_model_alias(name, alias, str(version))


def _read(store: Store, name: str, aliases: Aliases) -> tuple[int | None, int | None]:
    with mlflow_errors("the aliases cannot be read", f"{name} in {store.uri}"):
        try:
            known = dict(store.client.get_registered_model(name).aliases)
        except MlflowException as exc:
            if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            raise PromotionError(
                f"there is no registered model {name!r}", store.uri, "name a model that is registered there"
            ) from exc
    champion, previous = (int(known[a]) if a in known else None for a in (aliases.champion, aliases.previous))
    return champion, previous


def _named(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


def _reason(exc: BaseException) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
