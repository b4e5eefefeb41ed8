"""A challenger beside the champion, both out of the registry, on the data as they are now. Callable without Prefect."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import yaml

from pipelines import registry
from pipelines.architecture import ModelRef, load_module
from pipelines.config import PromoteConfig, parse_section
from pipelines.data import Data, load_data
from pipelines.errors import ConfigError, PromotionError, SourceError
from pipelines.flows.stages import check_data_fits
from pipelines.promotion import Facts, failures_of
from pipelines.registry import Aliases, SourceVersion, Standing, Store
from pipelines.steps.evaluate import assess
from pipelines.steps.evaluate.score import score
from pipelines.steps.measure import measure
from pipelines.steps.prune import size_of
from pipelines.tasks import Task, task_of

TOLERANCE = 1e-6  # between two evaluations of the same weights on the same data


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What came of it, and all that the decision is based on."""

    challenger: SourceVersion
    standing: Standing
    facts: Facts  # of the challenger, against the champion
    champion: Facts | None  # None: there is none yet
    reasons: tuple[str, ...]  # why it may not; empty: it passed
    digest: str  # of the challenger's files
    data_digest: str

    @property
    def summary(self) -> str:
        """One sentence with the numbers that count."""
        if self.champion is None:
            return (
                f"The first champion: validation {self.facts.metric} {self.facts.value:.4f}, {self.facts.latency_ms:.2f} ms."
            )
        return (
            f"Against version {self.standing.champion}: validation {self.facts.metric} {self.facts.value:.4f} "
            f"({self.champion.value:.4f}), {self.facts.speedup:.2f}x faster, "
            f"{self.champion.size_bytes / self.facts.size_bytes:.2f}x smaller."
        )


def aliases_of(config: PromoteConfig) -> Aliases:
    options = config.promotion
    return Aliases(champion=options.champion, previous=options.previous, lease=timedelta(minutes=options.lease_minutes))


def config_for(model: str, tracking_uri: str, trust: Sequence[str]) -> PromoteConfig:
    """By the recipe that is stored with the version. Whose code may run is never taken from the registry."""
    store = registry.open_store(tracking_uri)
    version = registry.resolve(store, model)
    text = registry.stored_recipe(store, version)
    if text is None:
        raise ConfigError(
            "this version says nothing about the data and the gate it is to be judged by",
            version.uri,
            "give the recipe as well: secateur promote models:/name@challenger recipe.yaml",
        )
    stored = yaml.safe_load(text)
    raw = {name: stored[name] for name in PromoteConfig.JUDGED_BY if name in stored}
    source = {"model": model, "trust": tuple(trust)}
    return parse_section(
        PromoteConfig, {**raw, "source": source, "tracking": {"uri": tracking_uri}}, f"the recipe stored with {version.uri}"
    )


def run_trial(config: PromoteConfig, folder: Path) -> Trial:
    """Evaluate and time both, and ask the gates. Raises SecateurError; changes nothing in the registry."""
    data, store = load_data(config.data), registry.open_store(config.tracking.uri)
    version = registry.resolve(store, config.source.model)
    standing = registry.standing(store, version.name, aliases_of(config))
    if standing.champion == version.version:
        raise PromotionError(f"{version.uri} is {config.promotion.champion} already", store.shown, "there is nothing to do")
    refs = {}
    if standing.champion is not None:
        current = registry.resolve(store, f"models:/{version.name}/{standing.champion}")
        refs["champion"] = _fetch(store, current, config, folder / "champion")
    refs["challenger"] = _fetch(store, version, config, folder / "challenger")
    task = task_of(data, config.task, config.source.trust)
    for ref in refs.values():
        check_data_fits(ref, data, task)
    facts = _measured(config, refs, data, task)
    challenger, champion = facts["challenger"], facts.get("champion")
    limits = config.gate
    if champion is None:  # nothing to be compared with: only what is asked of the version alone counts
        limits = limits.model_copy(update=dict.fromkeys(("min_agreement", "min_speedup", "min_macs_factor")))
        limits = limits.model_copy(update={"by_confidence_bound": False})
    return Trial(
        challenger=version,
        standing=standing,
        facts=challenger,
        champion=champion,
        reasons=failures_of(limits, challenger, champion or challenger, config.source.trust),
        digest=registry.folder_digest(folder / "challenger"),
        data_digest=data.digest,
    )


def verify(config: PromoteConfig, trial: Trial, folder: Path) -> None:
    """Load what the alias means now, as any user would, and compare it with what was judged. Raises PromotionError."""
    data, store = load_data(config.data), registry.open_store(config.tracking.uri)
    where = f"models:/{trial.challenger.name}@{config.promotion.champion}"
    version = registry.resolve(store, where)
    if version.version != trial.challenger.version:
        raise PromotionError(
            f"the alias means version {version.version}, not {trial.challenger.version}", where, "promote again"
        )
    try:
        ref = _fetch(store, version, config, folder)
    except SourceError as exc:
        raise PromotionError(f"what was promoted cannot be loaded any more: {exc.what}", where, exc.fix) from exc
    digest = registry.folder_digest(folder)
    if digest != trial.digest:
        raise PromotionError(
            f"the registry hands out other files than those that were judged: {digest[:12]}, not {trial.digest[:12]}",
            where,
            "find out who changed the artifacts of this version; register it again",
        )
    task = task_of(data, config.task, config.source.trust)
    value = assess(load_module(ref), data.validation, task, config.evaluate.batch_size).metrics[task.primary]
    if not math.isclose(value, trial.facts.value, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
        raise PromotionError(
            f"loaded again, the model reaches {task.primary} {value:.4f} on validation, not {trial.facts.value:.4f}",
            where,
            "see that the model gives the same answer to the same question twice",
        )


def _fetch(store: Store, version: SourceVersion, config: PromoteConfig, folder: Path) -> ModelRef:
    source = config.source
    return registry.fetch_model(store, version, folder, trust=source.trust, factory=source.factory, kwargs=source.kwargs)


def _measured(config: PromoteConfig, refs: Mapping[str, ModelRef], data: Data, task: Task) -> dict[str, Facts]:
    """The champion, where there is one, is what the challenger is compared with."""
    first = next(iter(refs))
    latencies = measure(refs, data, config.measure)
    seen = {name: assess(load_module(ref), data.validation, task, config.evaluate.batch_size) for name, ref in refs.items()}
    sizes = {name: size_of(load_module(ref), data, Path(ref.weights)) for name, ref in refs.items()}
    facts = {}
    for name in refs:
        result = score(task, seen[name], seen[first], config.evaluate)
        facts[name] = Facts(
            title=name,
            value=result.value,
            metric=task.primary,
            latency_ms=latencies[name].primary.p50_ms,
            params=sizes[name].params,
            macs=sizes[name].macs,
            size_bytes=sizes[name].size_bytes,
            drop=result.drop,
            drop_upper=result.drop_high,
            agreement=result.agreement,
            speedup=latencies[name].primary.speedup,
            macs_factor=sizes[first].macs / sizes[name].macs,
        )
    return facts
