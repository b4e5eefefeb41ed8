import functools
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient

from pipelines import registry
from pipelines.config import Data
from pipelines.data import load_data
from pipelines.errors import RegistryError
from pipelines.registry import Runs, Store

DATA = load_data(Data())


def statuses(store: Store, runs: Runs) -> list[str]:
    ids = [runs.parent, runs.baseline, *(candidate.run_id for candidate in runs.candidates)]
    return [str(store.client.get_run(run_id).info.status) for run_id in ids]


@pytest.mark.parametrize(
    ("ending", "status"),
    [(None, "FINISHED"), (ValueError("broken"), "FAILED"), (KeyboardInterrupt(), "KILLED"), (SystemExit(1), "KILLED")],
)
def test_runs_end_with_what_ended_them(store_uri: str, ending: BaseException | None, status: str) -> None:
    store = registry.open_store(store_uri)
    source = registry.resolve(store, "models:/digits-resnet@champion")
    seen: list[Runs] = []

    def work() -> None:
        with registry.open_runs(store, source, ["a", "b"], DATA, experiment=None, tags={"k": "v"}) as runs:
            seen.append(runs)
            assert statuses(store, runs) == ["RUNNING"] * 4
            if ending is not None:
                raise ending

    if ending is None:
        work()
    else:
        with pytest.raises(type(ending)):
            work()
    assert statuses(store, seen[0]) == [status] * 4
    parent = store.client.get_run(seen[0].parent)
    assert parent.info.experiment_id == source.experiment_id
    assert ("broken" in parent.data.tags.get("compression.failure", "")) == isinstance(ending, ValueError)


def test_a_lost_candidate_keeps_its_own_ending(store_uri: str) -> None:
    store = registry.open_store(store_uri)
    source = registry.resolve(store, "models:/digits-resnet@champion")
    with registry.open_runs(store, source, ["a", "b"], DATA, experiment="elsewhere", tags={}) as runs:
        registry.fail_run(store, runs.of("b"), "no luck")
    assert statuses(store, runs) == ["FINISHED", "FINISHED", "FINISHED", "FAILED"]
    assert store.client.get_run(runs.of("b")).data.tags["compression.failure"] == "no luck"
    assert store.client.get_experiment(runs.experiment_id).name == "elsewhere"


def test_runs_that_cannot_all_be_made_are_closed(store_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = registry.open_store(store_uri)
    source = registry.resolve(store, "models:/digits-resnet@champion")
    before = {run.info.run_id for run in store.client.search_runs([source.experiment_id])}
    real, left = MlflowClient.create_run, [1, 1, 1]

    def break_at_the_fourth(*args: Any, **options: Any) -> Any:
        if not left:
            raise MlflowException("gone", error_code=TEMPORARILY_UNAVAILABLE)
        left.pop()
        return real(*args, **options)

    monkeypatch.setattr(MlflowClient, "create_run", break_at_the_fourth)
    with (
        pytest.raises(RegistryError, match="cannot be made") as caught,
        registry.open_runs(store, source, ["a", "b"], DATA, experiment=None, tags={}),
    ):
        pass
    assert caught.value.retryable
    after = store.client.search_runs([source.experiment_id])
    assert [run.info.status for run in after if run.info.run_id not in before] == ["FAILED"] * 3


def test_what_a_killed_process_left_is_taken_up_or_closed(store_uri: str) -> None:
    """Taken up where it wrote down which runs they are, closed where it did not come to that."""
    store = registry.open_store(store_uri)
    source = registry.resolve(store, "models:/digits-resnet@champion")
    tags = {"compression.key": "k", "compression.place": "here"}
    open_runs = functools.partial(registry.open_runs, store, source, ["a"], DATA, experiment=None, tags=tags)
    killed = open_runs()
    runs = killed.__enter__()  # and never left
    with open_runs(earlier=runs) as again:
        assert again == runs
    assert statuses(store, runs) == ["FINISHED"] * 3
    with open_runs(earlier=runs) as new:  # those have finished
        assert new != runs
        left = open_runs()
        with left as newer:
            assert statuses(store, new) == ["KILLED"] * 3
            assert store.client.get_run(new.parent).data.tags["compression.failure"].startswith("its process ended")
            store.client.delete_run(newer.baseline)
            with open_runs(earlier=newer) as newest:
                assert newest.baseline != newer.baseline
            store.client.restore_run(newer.baseline)
