"""Runs, experiments and names as they are found in registries that people have cleaned up."""

import contextlib
import sqlite3

import pytest

from pipelines import lineage, registry
from pipelines.errors import ConfigError, RegistryError
from pipelines.registry import Store
from pipelines.registry.experiments import experiment_named

NAME = "digits-resnet"


@pytest.fixture
def store(store_uri: str) -> Store:
    return registry.open_store(store_uri)


def collect_garbage(store: Store, run_id: str) -> None:
    """What `mlflow gc` does to the tables: the run is gone for good."""
    connection = sqlite3.connect(store.uri.removeprefix("sqlite:///"))
    with contextlib.closing(connection), connection:
        for table in ("latest_metrics", "metrics", "params", "tags", "runs"):
            connection.execute(f"DELETE FROM {table} WHERE run_uuid = ?", (run_id,))  # noqa: S608


def test_a_source_whose_run_is_gone_for_good_is_found_by_its_model(store: Store) -> None:
    before = registry.resolve(store, f"models:/{NAME}/1")
    assert before.run_id is not None
    collect_garbage(store, before.run_id)
    assert registry.resolve(store, f"models:/{NAME}/1") == before


def test_a_deleted_experiment_is_named_before_there_are_runs(store: Store) -> None:
    source = registry.resolve(store, f"models:/{NAME}/1")
    assert registry.experiment_of(store, source, None) == source.experiment_id
    assert registry.experiment_of(store, source, "not made yet") is None
    made = experiment_named(store, "made", None)
    assert registry.experiment_of(store, source, "made") == made
    store.client.delete_experiment(made)
    with pytest.raises(RegistryError, match="'made' was deleted") as caught:
        registry.experiment_of(store, source, "made")
    assert f"restore -x {made}" in caught.value.fix
    store.client.delete_experiment(source.experiment_id)
    assert registry.resolve(store, f"models:/{NAME}/1").experiment_id is None


def test_one_version_is_asked_whether_it_is_marked(store: Store) -> None:
    uri = f"models:/{NAME}/1"
    assert registry.is_marked(store, uri, "digits-*", "champion", None)
    assert not registry.is_marked(store, uri, "vision-*", "champion", None)
    assert not registry.is_marked(store, uri, "*", "challenger", "compress=it's wanted")
    store.client.set_model_version_tag(NAME, "1", "compress", "it's wanted")
    assert registry.is_marked(store, uri, "*", None, "compress=it's wanted")


def test_other_people_s_tags_do_not_make_a_version_ours(store: Store) -> None:
    source = registry.resolve(store, f"models:/{NAME}/1")
    for tag in (lineage.TAG_SOURCE, lineage.TAG_METHOD):
        store.client.set_model_version_tag(NAME, "1", tag, "theirs")
    assert not registry.is_ours(store, source)


@pytest.mark.parametrize("name", ["it's", 'a "b"', "größe 模型", "100%_", "a`b"])
def test_names_that_can_be_searched_for(store: Store, name: str) -> None:
    for one in (name, f"{name} too"):
        store.client.create_registered_model(one)
        store.client.create_model_version(one, "/nowhere")
    assert [v.name for v in registry.search_versions(store, f"name={registry.quoted(name)}")] == [name]


@pytest.mark.parametrize("name", ['it\'s "b"', "ends with \\"])
def test_names_that_cannot_are_refused_with_a_way_out(name: str) -> None:
    with pytest.raises(ConfigError, match="cannot be searched for") as caught:
        registry.quoted(name)
    assert caught.value.fix
