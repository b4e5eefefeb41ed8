"""Who does a piece of work, against a real store."""

import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipelines import lineage, registry
from pipelines.config import Data
from pipelines.data import load_data
from pipelines.errors import UnderWayError
from pipelines.registry import Store, claims

NAME, KEY = "digits-resnet", "0123456789abcdef"
DATA = load_data(Data())


@pytest.fixture
def store(store_uri: str) -> Store:
    return registry.open_store(store_uri)


def begin(store: Store, place: str, seen: registry.Claims | None = None) -> str:
    """A run that has claimed the work, and stays open as that of a process at work does."""
    known = seen or registry.read_claims(store, NAME, KEY, place)
    source = registry.resolve(store, f"models:/{NAME}/1")
    tags = {lineage.WORK_PLACE: place, lineage.WORK_KEY: KEY, lineage.KIND: "parent"}
    run = store.client.create_run(source.experiment_id, tags=tags)
    claims.claim(store, known, run.info.run_id)
    return str(run.info.run_id)


def test_work_under_way_elsewhere_is_left_alone_and_ended_or_dead_work_is_not(store: Store) -> None:
    first = begin(store, "here")
    with pytest.raises(UnderWayError, match="under way in another process") as caught:
        registry.read_claims(store, NAME, KEY, "there")
    assert caught.value.where == f"run {first}, here"
    assert registry.read_claims(store, NAME, KEY, "here").seen == 1  # the lock of the folder is ours: it died
    assert registry.read_claims(store, NAME, "another key", "there").seen == 0
    store.client.set_terminated(first, "KILLED")
    second = begin(store, "there")
    assert registry.run_under_way(store, store.client.get_run(second).info.experiment_id, KEY) == second
    silent = int(time.time()) - claims.DEAD_AFTER - 1
    store.client.set_tag(second, lineage.ALIVE, str(silent))
    assert registry.run_under_way(store, store.client.get_run(second).info.experiment_id, KEY) is None
    assert registry.read_claims(store, NAME, KEY, "here").seen == 2


def test_who_was_taken_for_dead_registers_nothing_more(store: Store) -> None:
    first = begin(store, "here")
    registry.check_claim(store, NAME, KEY, first)
    store.client.set_tag(first, lineage.ALIVE, str(int(time.time()) - claims.DEAD_AFTER - 1))  # cut off from MLflow
    second = begin(store, "there")
    registry.check_claim(store, NAME, KEY, second)
    registry.check_claim(store, NAME, "another key", first)
    with pytest.raises(UnderWayError, match="has taken this work over") as caught:
        registry.check_claim(store, NAME, KEY, first)
    assert caught.value.where == f"run {second}"


def test_signs_of_life_are_given_for_as_long_as_the_work_takes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = begin(store, "here")
    store.client.set_tag(run_id, lineage.ALIVE, "1")
    monkeypatch.setattr(claims, "SIGN_EVERY", 0.05)
    with claims.alive(store, run_id):
        deadline = time.monotonic() + 30
        while store.client.get_run(run_id).data.tags[lineage.ALIVE] == "1" and time.monotonic() < deadline:
            time.sleep(0.05)
    assert claims.is_under_way(store.client.get_run(run_id))


def test_of_two_that_looked_at_once_one_begins_and_the_other_leaves_nothing(store: Store) -> None:
    source = registry.resolve(store, f"models:/{NAME}/1")
    one, other = (registry.read_claims(store, NAME, KEY, place) for place in ("here", "there"))
    tags = {lineage.WORK_KEY: KEY}
    before = set()
    with registry.open_runs(store, source, ["a"], DATA, experiment=None, tags=tags, claims=one) as runs:
        before = {run.info.run_id for run in store.client.search_runs([runs.experiment_id])}
        with (
            pytest.raises(UnderWayError, match=f"at the same time\n.*{runs.parent}"),
            registry.open_runs(store, source, ["a"], DATA, experiment=None, tags=tags, claims=other),
        ):
            pass
        assert {run.info.run_id for run in store.client.search_runs([runs.experiment_id])} == before
    with (
        pytest.raises(UnderWayError, match="at the same time"),  # done meanwhile: it would have been found
        registry.open_runs(store, source, ["a"], DATA, experiment=None, tags=tags, claims=other),
    ):
        pass


RACE = """
import sys, time, pathlib
from pipelines import environment
environment.prepare()
from pipelines import registry
from pipelines.errors import UnderWayError
from tests.pipelines.registry import test_claims
uri, me, folder = sys.argv[1:]
store, won = registry.open_store(uri), 0
for number in range(10):
    test_claims.KEY = f"key{number}"
    seen = registry.read_claims(store, test_claims.NAME, test_claims.KEY, me)
    pathlib.Path(folder, f"{number}-{me}").touch()
    while len(list(pathlib.Path(folder).glob(f"{number}-*"))) < 2:
        time.sleep(0.001)
    try:
        test_claims.begin(store, me, seen)
        won += 1
    except UnderWayError:
        pass
print(won)
"""


def test_of_two_processes_exactly_one_begins(store: Store, tmp_path: Path) -> None:
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACE, store.uri, me, str(tmp_path)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[3],
        )
        for me in ("one", "two")
    ]
    outputs = [racer.communicate(timeout=300) for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0], outputs
    assert sum(int(out.split()[-1]) for out, _ in outputs) == 10
