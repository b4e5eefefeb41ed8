"""Moving `champion`, against a real store. Two processes at once: tests/pipelines/flows/test_promote.py."""

import dataclasses
from datetime import timedelta

import pytest
from mlflow.tracking import MlflowClient

from pipelines import registry
from pipelines.errors import PromotionError, RegistryError
from pipelines.registry import Aliases, Standing, Store, champion, ledger

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
    entry = ledger.new_entry("promote", 1, None, 2, "the dead", "would have been good")
    ledger.claim(before.ledger, entry, before.seen, ALIASES.lease)
    with pytest.raises(PromotionError, match="under way: version 2, by the dead"):
        promote(store, 3)
    short = dataclasses.replace(ALIASES, lease=timedelta(0))
    now: Standing = registry.standing(store, NAME, short)
    with pytest.raises(PromotionError, match="took more than half of the lease"):  # such a lease suits nobody
        registry.promote_version(now, 3, short, by="me", why="")
    assert [e.outcome for e in registry.read_ledger(now.ledger)] == ["abandoned", "given up: it took too long"]
    assert not ledger.close(now.ledger, registry.read_ledger(now.ledger)[0], "promoted")  # it comes too late
    promote(store, 3)
    assert aliases(store) == {"champion": 3, "previous": 1}


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
    index = store.client.get_experiment_by_name(ledger.INDEX)
    assert index.lifecycle_stage == "deleted"
    store.client.restore_experiment(index.experiment_id)
    store.client.rename_experiment(index.experiment_id, "gone, as after mlflow gc")
    assert registry.open_ledger(store, NAME) == first


def test_a_model_that_is_not_there(store: Store) -> None:
    with pytest.raises(PromotionError, match="no registered model 'nobody'"):
        registry.standing(store, "nobody", ALIASES)
    assert champion.PROMOTED != champion.ROLLED_BACK
