"""What is written once, in MLflow itself, so that all who share a registry share it.

MLflow has no lock and no compare-and-set, but it has two things that are written once: a run's parameter (a second value
for the same key is refused, by the primary key of the table; the same value again is accepted, so a repeated request does
no harm) and an experiment's name with the tags it is made with. A book is a run whose parameters are its entries.

The runs of the books are found through an index run, and that through the tag of an experiment that is made together with
it and hidden at once. `mlflow gc` may take that experiment away; the index run is then found by its own tag.
"""

import contextlib
import hashlib
from collections.abc import Mapping

from mlflow.entities import Experiment, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from pipelines import lineage
from pipelines.addresses import without_secrets
from pipelines.errors import RegistryError

BOOKS = "secateur books"  # the experiment in which the books' runs are seen
INDEX = "secateur books (index)"  # made once, hidden, its tag names the index run


def open_book(client: MlflowClient, of: str, run_name: str, tags: Mapping[str, str]) -> str:
    """The id of its run; made if there is none. However many ask at once, all get the same."""
    experiment_id = _experiment(client)
    index = _index(client, experiment_id)
    key = hashlib.sha256(of.encode()).hexdigest()[:32]  # a parameter's name takes fewer characters than a model's
    known = client.get_run(index).data.params.get(key)
    if known is not None:
        return str(known)
    mine = _run(client, experiment_id, run_name, tags)
    if write_once(client, index, key, mine):
        return mine
    client.delete_run(mine)
    return str(client.get_run(index).data.params[key])


def write_once(client: MlflowClient, run_id: str, key: str, value: str) -> bool:
    """Did this value get there first? Also when a request was repeated after its answer was lost."""
    try:
        client.log_param(run_id, key, value)
    except MlflowException as exc:
        stands = client.get_run(run_id).data.params.get(key)
        if stands is None:
            raise RegistryError(
                f"the book cannot be written: {without_secrets(str(exc))}",
                f"run {run_id}",
                f"restore the run in the experiment {BOOKS!r} if it was deleted, then run again",
            ) from exc
        return bool(stands == value)
    return True


def _experiment(client: MlflowClient) -> str:
    if client.get_experiment_by_name(BOOKS) is None:
        with contextlib.suppress(MlflowException):  # another was faster
            return str(client.create_experiment(BOOKS))
    experiment = _existing(client, BOOKS)
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
