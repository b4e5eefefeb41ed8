"""The parent run's table, plots and report, and the alias."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import pruning_core as pc
from pipelines import lineage, registry, report
from pipelines.addresses import without_secrets
from pipelines.flows.stages.evaluating import source_evaluations
from pipelines.flows.stages.job import EVALUATION, Job
from pipelines.registry import Runs
from pipelines.steps.compare import Comparison
from pipelines.steps.evaluate import load_evaluation
from pipelines.steps.prune import PLAN


def publish(job: Job, runs: Runs, comparison: Comparison) -> list[str]:
    """The parent run's table and plot, and then, as the very last step, the alias. Says what could not be shown."""
    registry.check_claim(job.store, job.source.name, job.key, runs.parent)
    registry.remove_doubles(job.store, job.source.name, [runs.of(row.title) for row in comparison.rows[1:] if row.version])
    files = Path(job.folder) / "report"
    files.mkdir(parents=True, exist_ok=True)
    table = report.to_frame(comparison)
    table.to_csv(files / lineage.COMPARISON_CSV, index=False)
    as_json = json.dumps(dataclasses.asdict(comparison), indent=1)
    (files / lineage.COMPARISON_JSON).write_text(as_json, encoding="utf-8")
    (files / lineage.CONFIG_FILE).write_text(without_secrets(job.config.to_yaml()), encoding="utf-8")
    missing = _if_possible("no picture", lambda: report.accuracy_latency_plot(comparison, files / lineage.PLOT_FILE))
    missing += _if_possible("no report", lambda: _write_page(job, comparison, files / lineage.REPORT_FILE))
    note = report.describe_parent(comparison, job.source.name)
    registry.log_files(job.store, runs.parent, files, table, note)
    shown = job.store, job.source.name, runs.experiment_id
    missing += _if_possible("no dashboard", lambda: registry.publish_dashboard(*shown))
    best = next((row for row in comparison.rows if row.title == comparison.challenger), None)
    if best is not None and best.version is not None:
        registry.move_alias(job.store, job.source.name, job.config.registration.alias, best.version)
    return missing


def _if_possible(otherwise: str, show: Callable[[], object]) -> list[str]:
    """What only shows the result does not cost it: MLflow's saved views, for one, are nowhere documented."""
    try:
        show()
    except Exception as exc:
        return [f"{otherwise}: {type(exc).__name__}: {without_secrets(str(exc))}"]
    return []


def _write_page(job: Job, comparison: Comparison, path: Path) -> None:
    page = report.html_report(comparison, _widths(job, comparison), _confusions(job, comparison))
    path.write_text(page, encoding="utf-8")


def _widths(job: Job, comparison: Comparison) -> dict[str, list[report.Width]]:
    """Group by group, of every candidate whose plan is there."""
    plans = {row.title: job.folder_of(row.title) / PLAN for row in comparison.rows[1:]}
    cuts = {title: pc.PruningPlan.from_json(plan.read_text("utf-8")).cuts for title, plan in plans.items() if plan.exists()}
    return {title: [report.Width(c.group, c.width, len(c.keep)) for c in of_it] for title, of_it in cuts.items()}


def _confusions(job: Job, comparison: Comparison) -> report.Confusions | None:
    """Of the best candidate and the source, where the task tells classes apart."""
    if comparison.challenger is None:
        return None
    folders = source_evaluations(job)[1], job.folder_of(comparison.challenger) / EVALUATION
    source, candidate = (job.task.confusion(load_evaluation(folder, "test").kept) for folder in folders)
    if source is None or candidate is None:
        return None
    return report.Confusions(comparison.challenger, source, candidate)
