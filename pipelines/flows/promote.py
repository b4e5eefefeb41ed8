"""The promote flow: try the challenger against the champion, ask a person if that is wanted, move the alias, look again."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from prefect import flow, get_run_logger, runtime
from prefect.artifacts import create_markdown_artifact
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput

from pipelines import registry, report
from pipelines.config import CopyTo, PromoteConfig
from pipelines.environment import work_folder
from pipelines.errors import PromotionError
from pipelines.flows import trial as trials
from pipelines.flows.compress import step
from pipelines.flows.events import tell_promoted
from pipelines.flows.trial import Trial
from pipelines.registry import decide

DAY = 24 * 60 * 60


class Approval(RunInput):
    """What the person who resumes the run fills in."""

    approve: bool = False
    by: str = ""
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promoted:
    """What a promotion did."""

    name: str
    version: int
    before: int | None
    summary: str
    copied_to: str | None = None


@step("try {config.source.model}")
def try_challenger(config: PromoteConfig, folder: str) -> Trial:
    return trials.run_trial(config, Path(folder))


@step("copy version {version} of {name}")
def copy_champion(config: PromoteConfig, target: CopyTo, name: str, version: int, by: str, why: str) -> str:
    """The champion of the other registered model, too, becomes what was promoted here."""
    store = registry.open_store(config.tracking.uri)
    other = registry.open_store(target.tracking_uri or config.tracking.uri)
    copied = registry.copy_version(store, name, version, other, target.model)
    aliases = trials.aliases_of(config)
    before = registry.standing(other, target.model, aliases)
    if before.champion != copied:
        registry.promote_version(before, copied, aliases, by=by, why=f"Copied from {name} version {version}. {why}"[:900])
    return f"models:/{target.model}/{copied}"


@flow(name="promote", flow_run_name="promote {config.source.model}")
def promote(config: PromoteConfig, approved_by: str | None = None, by: str | None = None, why: str = "") -> Promoted:
    """Make a version the champion of its registered model, if it passes the gate against the champion of today.

    `approved_by` stands for the approval that the configuration asks for; without it, the run of a deployment is
    suspended until somebody has filled in its form. Every decision is written to the version.
    """
    if (done := _only_copied(config, by or approved_by or "promote")) is not None:
        return done
    folder = work_folder() / uuid4().hex[:12]
    try:
        trial = try_challenger(config, str(folder))
        text = report.trial_markdown(trial.facts, trial.champion, trial.reasons, f"{trial.challenger.uri}. {trial.summary}")
        create_markdown_artifact(text, key="promotion")
        who = by or approved_by or f"flow run {runtime.flow_run.name or 'promote'}"
        _require_passed(trial, who)
        if config.promotion.approval and approved_by is None:
            who, why = _ask(config, trial, text)
        elif approved_by is not None:
            who = approved_by
        why = f"{trial.summary} {why}".strip()
        registry.promote_version(
            trial.standing,
            trial.challenger.version,
            trials.aliases_of(config),
            by=who,
            why=why,
            verify=lambda: trials.verify(config, trial, folder / "again"),
        )
        get_run_logger().info("%s is %s now", trial.challenger.uri, config.promotion.champion)
        name, version = trial.challenger.name, trial.challenger.version
        target = config.promotion.copy_to
        copied = None if target is None else copy_champion(config, target, name, version, who, why)
        before = trial.standing.champion
        tell_promoted(name, version, before, trial.summary)
        return Promoted(name=name, version=version, before=before, summary=trial.summary, copied_to=copied)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _only_copied(config: PromoteConfig, who: str) -> Promoted | None:
    """Where the version is champion already and only its copy is missing, as after a registry that was away."""
    target = config.promotion.copy_to
    if target is None:
        return None
    store = registry.open_store(config.tracking.uri)
    version = registry.resolve(store, config.source.model)
    standing = registry.standing(store, version.name, trials.aliases_of(config))
    other = registry.open_store(target.tracking_uri or config.tracking.uri)
    if standing.champion != version.version or registry.is_copied(
        store, version.name, version.version, other, target.model, config.promotion.champion
    ):
        return None
    summary = f"{version.uri} was {config.promotion.champion} already."
    copied = copy_champion(config, target, version.name, version.version, who, summary)
    return Promoted(name=version.name, version=version.version, before=standing.previous, summary=summary, copied_to=copied)


def _require_passed(trial: Trial, who: str) -> None:
    if not trial.reasons:
        return
    reasons = "; ".join(trial.reasons)
    version = trial.challenger
    registry.record(trial.standing.ledger.store, version.name, version.version, decide("refused by the gate", who, reasons))
    raise PromotionError(
        f"{version.uri} does not pass the gate: {reasons}",
        f"against {'no champion' if trial.standing.champion is None else f'version {trial.standing.champion}'}",
        "the champion stays; name another version, or change the gate",
    )


def _ask(config: PromoteConfig, trial: Trial, text: str) -> tuple[str, str]:
    """Who approved, and why. An approval counts for the two versions that it was asked about, and for no others."""
    if not runtime.deployment.id:
        raise PromotionError(
            f"{trial.challenger.uri} passes the gate and waits for an approval\n{text}",
            "promotion.approval = true",
            "approve it: secateur promote --approve, or resume the run of a deployment in the Prefect UI",
        )
    form = Approval.with_initial_data(description=text)
    key = f"approve-{trial.challenger.version}-over-{trial.standing.champion or 'nothing'}"
    answer = suspend_flow_run(form, timeout=int(config.promotion.approval_days * DAY), key=key)
    who, why = answer.by or "someone in the Prefect UI", answer.reason
    if not answer.approve:
        version = trial.challenger
        registry.record(trial.standing.ledger.store, version.name, version.version, decide("not approved", who, why))
        raise PromotionError(f"{version.uri} was not approved by {who}: {why}", "the approval", "the champion stays")
    return who, why
