"""Moving `champion`, against a real store. Two processes at once: tests/pipelines/flows/test_promote.py."""

import contextlib
import dataclasses
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest
from mlflow.tracking import MlflowClient

from pipelines import registry
from pipelines.errors import PromotionError, RegistryError
from pipelines.registry import Aliases, Standing, Store, books, ledger

NAME = "digits-resnet"
ALIASES = Aliases()


@pytest.fixture
def store(store_uri: str) -> Store:
    """Three versions, the first is champion."""
    store = registry.open_store(store_uri)
    first = store.client.get_model_version(NAME, "1")
    for _ in range(2):
        store.client.create_model_version(
            NAME, str(first.source), first.run_id, model_id=str(first.source).partition("/")[2]
        )
    return store


def aliases(store: Store) -> dict[str, int]:
    return {alias: int(version) for alias, version in store.client.get_registered_model(NAME).aliases.items()}


def tags(store: Store, version: int) -> dict[str, str]:
    return dict(store.client.get_model_version(NAME, str(version)).tags)


def promote(store: Store, version: int, **options: object) -> None:
    registry.promote_version(registry.standing(store, NAME, ALIASES), version, ALIASES, by="me", why="faster", **options)  # type: ignore[arg-type]


def test_promotions_and_rollbacks_walk_the_same_way(store: Store) -> None:
    promote(store, 2)
    assert aliases(store) == {"champion": 2, "previous": 1}
    promote(store, 3)
    assert aliases(store) == {"champion": 3, "previous": 2}
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="complaints") == (3, 2)
    assert aliases(store) == {"champion": 2, "previous": 1}
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="more complaints") == (2, 1)
    assert aliases(store) == {"champion": 1}
    with pytest.raises(PromotionError, match="nothing to go back to"):
        registry.roll_back(store, NAME, ALIASES, by="you", why="even more")
    promote(store, 3)
    assert aliases(store) == {"champion": 3, "previous": 1}


def test_every_decision_stands_in_tags_and_description(store: Store) -> None:
    store.client.update_model_version(NAME, "2", "A plain sentence.\n\nA table.")
    promote(store, 2)
    registry.roll_back(store, NAME, ALIASES, by="you", why="complaints")
    version = store.client.get_model_version(NAME, "2")
    decisions = registry.decisions_in(version.tags)
    assert [(d.what, d.by, d.why) for d in decisions] == [
        ("made champion", "me", "faster"),
        ("rolled back", "you", "complaints"),
    ]
    assert version.tags["promotion"].startswith("rolled back 20")
    assert version.description.startswith("A plain sentence.\n\nA table.\n\n## Decisions")
    assert all(d.sentence in version.description for d in decisions)
    assert "Version 2 is champion now" in tags(store, 1)["promotion.decisions"]


def test_a_failed_check_takes_the_promotion_back(store: Store) -> None:
    promote(store, 2)

    def verify() -> None:
        assert aliases(store) == {"champion": 3, "previous": 2}
        raise PromotionError("the weights are not those that were judged", "here", "look")

    with pytest.raises(PromotionError, match="not those that were judged"):
        promote(store, 3, verify=verify)
    assert aliases(store) == {"champion": 2, "previous": 1}
    assert tags(store, 3)["promotion"].startswith("rolled back")
    assert "not those that were judged" in tags(store, 3)["promotion.decisions"]
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="") == (2, 1)  # the undone one does not count


def test_a_first_champion_and_its_failed_check(store: Store) -> None:
    store.client.delete_registered_model_alias(NAME, "champion")

    def verify() -> None:
        raise PromotionError("no", "here", "look")

    with pytest.raises(PromotionError, match="no"):
        promote(store, 2, verify=verify)
    assert aliases(store) == {}
    promote(store, 2)
    assert aliases(store) == {"champion": 2}


def test_of_two_that_compared_with_the_same_champion_the_second_is_told(store: Store) -> None:
    one, other = (registry.standing(store, NAME, ALIASES) for _ in range(2))
    registry.promote_version(one, 2, ALIASES, by="one", why="first")
    with pytest.raises(PromotionError, match=r"another promote won: version 2, by one, at .* \(first\)"):
        registry.promote_version(other, 3, ALIASES, by="other", why="late")
    assert aliases(store) == {"champion": 2, "previous": 1}


def test_an_alias_that_was_moved_by_hand_is_noticed(store: Store) -> None:
    before = registry.standing(store, NAME, ALIASES)
    store.client.set_registered_model_alias(NAME, "champion", "3")
    with pytest.raises(PromotionError, match="moved from version 1 to version 3"):
        registry.promote_version(before, 2, ALIASES, by="me", why="")
    assert aliases(store) == {"champion": 3}
    promote(store, 2)  # the claim was given back
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="") == (2, 3)


def test_while_one_is_under_way_the_others_wait_and_a_dead_one_is_passed(store: Store) -> None:
    before = registry.standing(store, NAME, ALIASES)
    entry = ledger.new_entry("promote", 1, None, 2, "the dead", "would have been good", timedelta(minutes=5))
    claimed = ledger.claim(before.ledger, entry, before.seen)
    short = dataclasses.replace(ALIASES, lease=timedelta(0))
    with pytest.raises(PromotionError, match="under way: version 2, by the dead"):  # it is the holder's lease that counts
        registry.promote_version(registry.standing(store, NAME, short), 3, short, by="me", why="")
    grow_old(store, before, claimed)
    now: Standing = registry.standing(store, NAME, short)
    with pytest.raises(PromotionError, match="took more than half of the lease"):  # such a lease suits nobody
        registry.promote_version(now, 3, short, by="me", why="")
    assert [e.outcome for e in registry.read_ledger(now.ledger)] == ["abandoned", "given up: it took too long"]
    assert not ledger.close(now.ledger, registry.read_ledger(now.ledger)[0], "promoted")  # it comes too late
    promote(store, 3)
    assert aliases(store) == {"champion": 3, "previous": 1}


def grow_old(store: Store, before: Standing, entry: ledger.Entry) -> None:
    """As if it had been claimed an hour ago."""
    long_ago = (datetime.now(UTC) - timedelta(hours=1)).isoformat(timespec="seconds")
    connection = sqlite3.connect(store.uri.removeprefix("sqlite:///"))
    with contextlib.closing(connection), connection:
        changed = connection.execute(
            "UPDATE params SET value = replace(value, ?, ?) WHERE run_uuid = ? AND key = ?",
            (entry.at, long_ago, before.ledger.run_id, str(entry.number)),
        )
        assert changed.rowcount == 1


def die(store: Store, action: str, to: int, after: str) -> None:
    """A process is killed while it promotes or rolls back: after the claim, after `previous`, or after `champion`."""
    before = registry.standing(store, NAME, ALIASES)
    entry = ledger.new_entry(action, before.champion, before.previous, to, "the dead", "faster", ALIASES.lease)
    entry = ledger.claim(before.ledger, entry, before.seen)
    if after != "claim":
        store.client.set_registered_model_alias(NAME, "previous", str(before.champion))
    if after == "champion":
        store.client.set_registered_model_alias(NAME, "champion", str(to))
    grow_old(store, before, entry)


@pytest.mark.parametrize("after", ["claim", "previous"])
def test_a_process_that_died_before_champion_moved_has_changed_nothing(store: Store, after: str) -> None:
    promote(store, 2)
    die(store, "promote", 3, after)
    registry.standing(store, NAME, ALIASES)
    assert aliases(store) == {"champion": 2, "previous": 1}
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="") == (2, 1)
    promote(store, 3)
    assert aliases(store) == {"champion": 3, "previous": 1}


def test_a_process_that_died_after_champion_moved_has_promoted(store: Store) -> None:
    promote(store, 2)
    die(store, "promote", 3, "champion")
    assert registry.standing(store, NAME, ALIASES).champion == 3
    (decision,) = registry.decisions_in(tags(store, 3))
    assert (decision.what, decision.by) == ("made champion", "the dead")
    assert "died before it could check" in decision.why
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="") == (3, 2)
    assert aliases(store) == {"champion": 2, "previous": 1}
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="") == (2, 1)


def test_a_rollback_that_died_is_done_or_not(store: Store) -> None:
    promote(store, 2)
    promote(store, 3)
    die(store, "rollback", 2, "champion")
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="") == (2, 1)


def test_an_answer_that_was_lost_is_no_failure(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    real = MlflowClient.set_registered_model_alias

    def lossy(client: MlflowClient, name: str, alias: str, version: str) -> None:
        real(client, name, alias, version)
        if alias == "champion":
            raise OSError("connection reset")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", lossy)
    promote(store, 2)
    monkeypatch.undo()
    assert aliases(store) == {"champion": 2, "previous": 1}
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="") == (2, 1)


def test_a_move_that_fails_half_way_gives_previous_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(store, 2)
    real = MlflowClient.set_registered_model_alias

    def half(client: MlflowClient, name: str, alias: str, version: str) -> None:
        if alias == "champion":
            raise OSError("connection refused")
        real(client, name, alias, version)

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", half)
    with pytest.raises(RegistryError, match="connection refused"):
        promote(store, 3)
    monkeypatch.undo()
    assert aliases(store) == {"champion": 2, "previous": 1}


def test_a_rollback_to_what_was_deleted_is_refused_and_one_past_it_is_not(store: Store) -> None:
    promote(store, 2)
    promote(store, 3)
    store.client.delete_model_version(NAME, "1")
    assert registry.roll_back(store, NAME, ALIASES, by="you", why="") == (3, 2)
    assert aliases(store) == {"champion": 2}
    with pytest.raises(PromotionError, match="version 1, the champion before, has been deleted") as caught:
        registry.roll_back(store, NAME, ALIASES, by="you", why="")
    assert "by hand" in caught.value.fix
    assert aliases(store) == {"champion": 2}
    promote(store, 3)  # nothing is held


def test_a_check_that_outlasts_the_lease_is_still_taken_back(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    promote(store, 2)

    def verify() -> None:
        late = property(lambda entry: timedelta(hours=entry.action == "promote"))
        monkeypatch.setattr(ledger.Entry, "age", late)
        raise PromotionError("the weights are others", "here", "look")

    with pytest.raises(PromotionError, match="the weights are others"):
        promote(store, 3, verify=verify)
    assert aliases(store) == {"champion": 2, "previous": 1}
    assert [d.what for d in registry.decisions_in(tags(store, 3))] == ["found wanting", "rolled back"]
    assert [e.outcome for e in registry.read_ledger(registry.open_ledger(store, NAME))] == [*["promoted"] * 2, "rolled back"]


def test_a_registry_that_fails_half_way_leaves_the_champion(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(*_: object) -> None:
        raise OSError("connection refused")

    monkeypatch.setattr(MlflowClient, "set_registered_model_alias", gone)
    with pytest.raises(RegistryError, match="connection refused"):
        promote(store, 2)
    monkeypatch.undo()
    store.select()
    assert aliases(store) == {"champion": 1}
    promote(store, 2)


def test_everyone_gets_the_same_ledger_also_after_a_clean_up(store: Store) -> None:
    first = registry.open_ledger(store, NAME)
    assert registry.open_ledger(store, NAME) == first
    assert registry.open_ledger(store, "another").run_id != first.run_id
    index = store.client.get_experiment_by_name(books.INDEX)
    assert index.lifecycle_stage == "deleted"
    store.client.restore_experiment(index.experiment_id)
    store.client.rename_experiment(index.experiment_id, "gone, as after mlflow gc")
    assert registry.open_ledger(store, NAME) == first


def test_a_model_that_is_not_there(store: Store) -> None:
    with pytest.raises(PromotionError, match="no registered model 'nobody'"):
        registry.standing(store, "nobody", ALIASES)
