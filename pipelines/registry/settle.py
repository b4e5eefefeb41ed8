"""After a process that died while it moved `champion`: what it had done is written down, what it had begun is undone."""

import contextlib

from pipelines.errors import PromotionError
from pipelines.registry.aliases import Aliases, is_there, read_aliases, set_alias
from pipelines.registry.decisions import decide, decisions_in, record
from pipelines.registry.ledger import ABANDONED, Entry, Ledger, claim, close, new_entry, read
from pipelines.registry.store import mlflow_errors

PROMOTED, ROLLED_BACK = "promoted", "rolled back"
DONE = {"promote": PROMOTED, "rollback": ROLLED_BACK}
REPAIR, REPAIRED = "repair", "repaired"  # of `previous`, an entry of its own: one process at a time moves an alias
DIED = "The process died before it could check the version once more."


def settle(ledger: Ledger, aliases: Aliases) -> None:
    """Close the last entry if its holder is dead. Raises RegistryError."""
    entries = read(ledger)
    if not entries or not entries[-1].is_dead:
        return
    entry = entries[-1]
    champion, previous = read_aliases(ledger.store, ledger.name, aliases)
    if champion == entry.to != entry.champion:
        _write_down(ledger, entry, aliases)
        close(ledger, entry, DONE.get(entry.action, ABANDONED))
        return
    close(ledger, entry, ABANDONED)
    if champion == entry.champion and previous != entry.previous:
        _give_back_previous(ledger, entry, len(entries), aliases)


def _write_down(ledger: Ledger, entry: Entry, aliases: Aliases) -> None:
    """The decision that the alias shows, unless it was written before the process died."""
    what, to = f"made {aliases.champion}", entry.to
    assert to is not None
    with mlflow_errors("the decisions cannot be read", ledger.name):
        known = decisions_in(ledger.store.client.get_model_version(ledger.name, str(to)).tags)
    if not any(decision.what.startswith(what) and decision.at >= entry.at for decision in known):
        record(ledger.store, ledger.name, to, decide(what, entry.by, f"{entry.why} {DIED}".strip()))


def _give_back_previous(ledger: Ledger, dead: Entry, seen: int, aliases: Aliases) -> None:
    """`previous` is moved first, so it may mean the champion itself by now."""
    store, name, to = ledger.store, ledger.name, dead.previous
    entry = new_entry(REPAIR, dead.champion, dead.previous, dead.champion, dead.by, f"{aliases.previous} again", dead.lease)
    with contextlib.suppress(PromotionError):  # somebody else is at it, or has promoted another one meanwhile
        entry = claim(ledger, entry, seen)
        set_alias(store, name, aliases.previous, to if to is not None and is_there(store, name, to) else None)
        close(ledger, entry, REPAIRED)
