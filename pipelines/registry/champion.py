"""Move `champion` from one version to another, and back: one at a time, checked afterwards, and written down."""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipelines.errors import PromotionError, RegistryError
from pipelines.registry.aliases import Aliases, is_there, read_aliases, set_alias
from pipelines.registry.decisions import decide, record
from pipelines.registry.ledger import Entry, Ledger, check_in_time, claim, close, new_entry, open_ledger, read
from pipelines.registry.settle import PROMOTED, ROLLED_BACK, settle
from pipelines.registry.store import Store


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
    """Read before anything is compared; what a dead process has left is put right first. Raises RegistryError."""
    read_aliases(store, name, aliases)  # a model that is not there gets no ledger
    ledger = open_ledger(store, name)
    settle(ledger, aliases)
    seen = len(read(ledger))  # first: a promotion between the two reads must not go unnoticed
    champion, previous = read_aliases(store, name, aliases)
    return Standing(ledger=ledger, champion=champion, previous=previous, seen=seen)


def promote_version(
    before: Standing, version: int, aliases: Aliases, *, by: str, why: str, verify: Callable[[], None] = lambda: None
) -> None:
    """Make `version` the champion that it was compared for, or raise PromotionError and leave everything as it was.

    `verify` is called after the move; if it raises, the aliases go back to where they were, and the error goes on.
    """
    entry = new_entry("promote", before.champion, before.previous, version, by, why, aliases.lease)
    entry = claim(before.ledger, entry, before.seen)
    _move(before, entry, aliases, previous=before.champion or before.previous)
    try:
        verify()
    except BaseException as exc:
        _take_back(before, entry, aliases, _reason(exc))
        raise
    store, name = before.ledger.store, before.name
    with _closed(before.ledger, entry, PROMOTED):
        record(store, name, version, decide(f"made {aliases.champion}", by, why))
        if before.champion is not None and is_there(store, name, before.champion):
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
            f"aliases {aliases.champion!r} and {aliases.previous!r} in {store.shown}",
            f"set the alias {aliases.champion!r} by hand",
        )
    if not is_there(store, name, to):
        raise PromotionError(
            f"there is no going back: version {to}, the champion before, has been deleted",
            f"{name} in {store.shown}",
            f"promote another version, or set the alias {aliases.champion!r} by hand",
        )
    previous = undone.previous if undone else None
    if previous is not None and not is_there(store, name, previous):
        previous = None
    entry = new_entry("rollback", before.champion, before.previous, to, by, why, aliases.lease)
    entry = claim(before.ledger, entry, before.seen)
    _move(before, entry, aliases, previous=previous)
    with _closed(before.ledger, entry, ROLLED_BACK):
        if before.champion is not None and is_there(store, name, before.champion):
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


@contextlib.contextmanager
def _closed(ledger: Ledger, entry: Entry, outcome: str) -> Iterator[None]:
    """Decisions are written while the model is still held: two writers of one tag would lose one of them."""
    try:
        yield
    finally:
        close(ledger, entry, outcome)


def _take_back(before: Standing, entry: Entry, aliases: Aliases, reason: str) -> None:
    """After a failed check. If somebody has moved the champion meanwhile, that stands."""
    store, name = before.ledger.store, before.name
    assert entry.to is not None
    if entry.age > entry.lease / 2:  # the check took so long that another may hold the model, or is about to
        text = f"The check after the promotion failed, too late to take it back: {reason}"
        close(before.ledger, entry, PROMOTED)
        record(store, name, entry.to, decide("found wanting", entry.by, text))
        with contextlib.suppress(PromotionError):  # somebody was faster, and has looked at the champion as it is
            if read_aliases(store, name, aliases)[0] == entry.to:
                roll_back(store, name, aliases, by="the check after the promotion", why=reason)
        return
    with _closed(before.ledger, entry, f"{ROLLED_BACK}: {reason}"):
        if read_aliases(store, name, aliases)[0] == entry.to:
            set_alias(store, name, aliases.champion, before.champion)
            set_alias(store, name, aliases.previous, before.previous)
        record(store, name, entry.to, decide(ROLLED_BACK, "the check after the promotion", reason))


def _move(before: Standing, entry: Entry, aliases: Aliases, *, previous: int | None) -> None:
    """`champion` last, in one step: whoever reads it sees the old or the new one, never none.

    Raises PromotionError or RegistryError with both aliases where they were; or, where the registry does not even say
    where they are, with an entry that is settled later.
    """
    ledger = before.ledger
    try:
        _require_unmoved(before, aliases)
        check_in_time(ledger, entry)
        set_alias(ledger.store, ledger.name, aliases.previous, previous)
        set_alias(ledger.store, ledger.name, aliases.champion, entry.to)
    except BaseException as exc:
        now, second = read_aliases(ledger.store, ledger.name, aliases)
        if now == entry.to != before.champion and isinstance(exc, RegistryError):
            return  # it was done, only the answer was lost
        if now == before.champion and second != before.previous:
            set_alias(ledger.store, ledger.name, aliases.previous, before.previous)
        close(ledger, entry, f"not done: {_reason(exc)}")
        raise


def _require_unmoved(before: Standing, aliases: Aliases) -> None:
    """Somebody who does not ask us, in MLflow's UI for instance, may have moved the alias since the comparison."""
    now = read_aliases(before.ledger.store, before.name, aliases)[0]
    if now != before.champion:
        raise PromotionError(
            f"the alias {aliases.champion!r} has been moved from {_named(before.champion)} to {_named(now)} meanwhile",
            f"{before.name} in {before.ledger.store.shown}",
            "decide again, against the champion as it is now",
        )


def _named(version: int | None) -> str:
    return "no version" if version is None else f"version {version}"


def _reason(exc: BaseException) -> str:
    return str(exc).splitlines()[0] if str(exc) else type(exc).__name__
