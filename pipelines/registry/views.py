"""Dashboards in an experiment, and links to them where people look: its note, the parent run, the registered model."""

from itertools import islice

from mlflow.exceptions import MlflowException

from pipelines import dashboard, lineage
from pipelines.errors import RegistryError, SourceError
from pipelines.names import did_you_mean
from pipelines.registry.decisions import MAX_DESCRIPTION
from pipelines.registry.naming import quoted
from pipelines.registry.search import search_versions
from pipelines.registry.store import Store, mlflow_errors, now_ms

NOTE = "mlflow.note.content"
MAX_NOTE = 20_000  # characters of an experiment's tag
LOOK_AT = 100  # versions: a registry may hold thousands, and experiments change rarely
BEGIN, END = "<!-- secateur dashboard -->", "<!-- /secateur dashboard -->"


def publish_dashboard(store: Store, name: str, experiment_id: str) -> dict[str, str]:
    """Write the views of an experiment, or write them anew; links go into its note and the registered model's text.

    Returns the names of the views and their paths in the MLflow UI. What a person wrote beside our links stays.
    Raises RegistryError where the experiment holds no finished compression.
    """
    with mlflow_errors("the dashboard cannot be published", f"experiment {experiment_id}"):
        experiment = store.client.get_experiment(experiment_id)
        metric, parent, baseline = _latest(store, experiment_id, name)
        views = [dashboard.view_of(metric, None, baseline), dashboard.view_of(metric, parent, baseline)]
        now = now_ms()
        for view in views:
            store.client.set_experiment_tag(experiment_id, *view.as_tag(now))
        paths = {view.name: dashboard.view_path(experiment_id, view.key) for view in views}
        links = "Dashboards: " + ", ".join(f"[{title}]({path})" for title, path in paths.items())
        if len(note := with_links(experiment.tags.get(NOTE, ""), links)) <= MAX_NOTE:
            store.client.set_experiment_tag(experiment_id, NOTE, note)
        description = store.client.get_registered_model(name).description or ""
        text = with_links(description, links)
        if text != description and len(text) <= MAX_DESCRIPTION:  # what a person wrote is not cut for our links
            store.client.update_registered_model(name, text)
    return paths


def with_links(text: str, links: str) -> str:
    """`text` with one block of ours, where the last one stood or at its end."""
    block = f"{BEGIN}\n{links}\n{END}"
    before, begun, rest = text.partition(BEGIN)
    if begun and END in rest:
        return before + block + rest.partition(END)[2]
    return f"{text}\n\n{block}" if text else block


def experiments_with_compressions(store: Store, name: str) -> tuple[str, ...]:
    """Ids of the experiments that hold the last compressions of a registered model, the latest first.

    Raises RegistryError, and SourceError where there are none.
    """
    with mlflow_errors("the compressions cannot be searched", name):
        _check_known(store, name)
        newest = islice(search_versions(store, f"name={quoted(name)}"), LOOK_AT)
        runs = {version.run_id for version in newest if version.run_id}
        found: dict[str, int] = {}
        for run_id in runs:
            try:
                run = store.client.get_run(run_id)
            except MlflowException:
                continue  # deleted for good
            if lineage.KIND in run.data.tags:
                found[run.info.experiment_id] = max(found.get(run.info.experiment_id, 0), run.info.start_time)
    if not found:
        where = f"registered model {name!r}"
        raise SourceError("it has no compressed versions yet", where, "run `secateur compress` first")
    return tuple(sorted(found, key=lambda key: -found[key]))


def _check_known(store: Store, name: str) -> None:
    try:
        store.client.get_registered_model(name)
    except MlflowException as exc:
        if exc.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        known = [model.name for model in store.client.search_registered_models()]
        raise SourceError("there is no registered model of that name", repr(name), did_you_mean(name, known)) from exc


def _latest(store: Store, experiment_id: str, name: str) -> tuple[str, str, str]:
    """The primary metric, and the ids of the parent and the baseline run, of the last compression that ended well."""
    found = f"tags.`{lineage.KIND}` = 'baseline' and tags.`{lineage.SOURCE}` LIKE {quoted(f'models:/{name}/%')}"
    prefix = f"models:/{name}/"  # `_` and `%` stand for anything in LIKE
    for run in store.client.search_runs([experiment_id], found, order_by=["attributes.start_time DESC"], max_results=50):
        if not run.data.tags[lineage.SOURCE].startswith(prefix):
            continue
        for metric in run.data.metrics:
            if lineage.DROP.format(metric) in run.data.metrics and not metric.startswith(lineage.of_validation("")):
                return metric, run.data.tags["mlflow.parentRunId"], run.info.run_id
    raise RegistryError(
        f"no compression of {name!r} is recorded there", f"experiment {experiment_id}", "run `secateur compress` first"
    )
