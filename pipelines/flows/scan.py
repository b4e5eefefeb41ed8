"""The scan flow: what is marked in the registry and has not been compressed by this recipe is compressed, once."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from prefect import flow, get_run_logger
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterIdempotencyKey
from prefect.client.schemas.objects import FlowRun
from prefect.deployments import run_deployment

from pipelines import registry
from pipelines.config import CompressConfig, ScanConfig
from pipelines.errors import SecateurError, UnderWayError
from pipelines.flows import stages
from pipelines.flows.compress import compress
from pipelines.registry import Store

STARTED, DONE, UNDER_WAY, FAILED, OURS, LATER = (
    "started",
    "done before",
    "under way",
    "failed",
    "made by secateur",
    "left for the next scan",
)
AGAIN = "retry_failed starts it again"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """One marked version, and what was done about it."""

    uri: str
    outcome: str
    detail: str = ""  # a run, or a reason
    key: str = ""  # of the work


@flow(name="scan", flow_run_name="scan {config.models}")
def scan(config: ScanConfig, only: str | None = None) -> list[Found]:
    """Compress every version that carries the alias or the tag and has not been compressed by this recipe.

    The same work is known by the digest of source, data and recipe, so scanning twice does nothing twice. `only` names
    a single version, as a webhook does; it must be marked all the same.
    """
    found: list[Found] = []
    for uri in marked(config, only):
        is_full = sum(item.outcome == STARTED for item in found) >= config.limit
        found.append(Found(uri=uri, outcome=LATER) if is_full else consider(config, uri))
        get_run_logger().info("%s: %s %s", uri, found[-1].outcome, found[-1].detail)
    rows = [{"version": item.uri, "outcome": item.outcome, "detail": item.detail, "key": item.key} for item in found]
    create_table_artifact(rows, key="scan", description=f"{len(found)} versions are marked")
    return found


def marked(config: ScanConfig, only: str | None = None) -> Sequence[str]:
    store = registry.open_store(config.recipe.tracking.uri)
    if only is not None:
        return [only] if registry.is_marked(store, only, config.models, config.alias, config.tag) else []
    return registry.marked_versions(store, config.models, config.alias, config.tag)


def consider(config: ScanConfig, uri: str) -> Found:
    """Start the work on one version unless it is done, under way, or not to be done. A version's failure is its own."""
    source = config.recipe.source.model_copy(update={"model": uri, "first": None})  # there is a version already
    recipe = config.recipe.model_copy(update={"source": source})
    key = ""
    try:
        store = registry.open_store(recipe.tracking.uri)
        version, key = stages.identify(recipe)
        if not config.include_compressed and registry.is_ours(store, version):
            return Found(uri=uri, outcome=OURS)
        known = _known(config, store, version, key)
        if known is not None:
            return Found(uri=uri, outcome=known[0], detail=known[1], key=key)
        if config.deployment is not None:
            return _by_deployment(config, recipe, uri, key)
        comparison = compress(recipe)
        return Found(uri=uri, outcome=STARTED, detail=f"run {comparison.run_id}", key=key)
    except UnderWayError as exc:
        return Found(uri=uri, outcome=UNDER_WAY, detail=exc.where, key=key)
    except SecateurError as exc:
        return Found(uri=uri, outcome=FAILED, detail=str(exc).splitlines()[0], key=key)


def _known(config: ScanConfig, store: Store, version: registry.SourceVersion, key: str) -> tuple[str, str] | None:
    """What the registry knows of this work."""
    experiment_id = registry.experiment_of(store, version, config.recipe.registration.experiment)
    if experiment_id is None:
        return None
    earlier = registry.find_finished(store, experiment_id, version.name, key, with_failures=not config.retry_failed)
    if earlier is not None and not earlier.failures:
        return DONE, f"run {earlier.run_id}"
    if (run_id := registry.run_under_way(store, experiment_id, key)) is not None:
        return UNDER_WAY, f"run {run_id}"
    if earlier is not None:
        lost = ", ".join(failure.title for failure in earlier.failures)
        return DONE, f"run {earlier.run_id}, without {lost}; {AGAIN}"
    failed = None if config.retry_failed else registry.failed_run(store, experiment_id, key)
    return None if failed is None else (FAILED, f"run {failed}; {AGAIN}")


def _by_deployment(config: ScanConfig, recipe: CompressConfig, uri: str, key: str) -> Found:
    """Prefect makes one flow run per idempotency key, however many ask for it at once."""
    assert config.deployment is not None
    attempt = 0
    for attempt, run in enumerate(_runs(key), start=1):  # noqa: B007  counts
        state = run.state
        if state is None or not state.is_final():
            return Found(uri=uri, outcome=UNDER_WAY, detail=f"flow run {run.name}", key=key)
        if state.is_completed():
            continue  # what it registered has been deleted since, or it would have been found
        if not config.retry_failed:
            return Found(uri=uri, outcome=FAILED, detail=f"flow run {run.name}; {AGAIN}", key=key)
    made = run_deployment(
        config.deployment,
        parameters={"config": recipe.model_dump(mode="json")},
        idempotency_key=_attempt(key, attempt),
        timeout=0,
        as_subflow=False,
    )
    assert isinstance(made, FlowRun)
    return Found(uri=uri, outcome=STARTED, detail=f"flow run {made.name}", key=key)


def _runs(key: str) -> Sequence[FlowRun]:
    """The flow runs of this work, the first attempt first."""
    found: dict[UUID, FlowRun] = {}
    with get_client(sync_client=True) as client:
        for attempt in range(100):
            wanted = FlowRunFilter(idempotency_key=FlowRunFilterIdempotencyKey(any_=[_attempt(key, attempt)]))
            runs = client.read_flow_runs(flow_run_filter=wanted, limit=1)
            if not runs:
                break
            found[runs[0].id] = runs[0]
    return list(found.values())


def _attempt(key: str, attempt: int) -> str:
    return f"secateur-{key}" + (f"-{attempt}" if attempt else "")
