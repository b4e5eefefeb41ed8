"""What stands beside a version and a run in the MLflow UI. A plain sentence comes first: tables cut after it."""

from pipelines import lineage
from pipelines.report.table import to_markdown
from pipelines.report.words import NOTE_ON_DROPS, drop_in_words, linked, metric_name, nothing_passed, version_path
from pipelines.steps.compare import Comparison, Row


def version_tags(row: Row, source_version: int) -> dict[str, str]:
    """Five, and short."""
    return {
        lineage.TAG_SOURCE: f"v{source_version}",
        lineage.TAG_METHOD: row.method,
        lineage.TAG_RATIO: row.asked,
        row.metric: f"{row.test.value:.4f}",
        lineage.TAG_SPEEDUP: f"{row.speedup:.2f}x",
    }


def describe_version(
    row: Row,
    baseline: Row,
    name: str,
    source_version: int,
    experiment_id: str,
    run_id: str,
    flow_run_url: str | None = None,
) -> str:
    """Markdown with links that work inside the MLflow UI."""
    flow = f"; [Prefect flow run]({flow_run_url})" if flow_run_url else ""
    name_of, before = metric_name(row.metric), baseline.test.value
    verdict = "" if row.passed else f"Rejected by the gate: {row.verdict}.\n\n"
    return f"""{verdict}Pruned version {source_version}: {row.speedup:.1f}x faster, {row.params_factor:.1f}x smaller, \
test {name_of} {row.test.value:.3f} (source {before:.3f}): {drop_in_words(row)}.

| | source | this version | factor |
| --- | --- | --- | --- |
| test {name_of}, channels cut | {before:.4f} | {row.after_cut:.4f} | |
{_mended(row, name_of, before)}
| test {name_of}, fine-tuned | {before:.4f} | {row.test.value:.4f} | |
| latency p50 (ms) | {baseline.latency_p50_ms:.3f} | {row.latency_p50_ms:.3f} | {row.speedup:.2f}x |
| params | {baseline.params:,} | {row.params:,} | {row.params_factor:.2f}x |
| MACs | {baseline.macs:,} | {row.macs:,} | {row.macs_factor:.2f}x |
| size (bytes) | {baseline.size_bytes:,} | {row.size_bytes:,} | {row.size_factor:.2f}x |

{row.channels_removed:.0%} of the prunable channels removed by {row.method} (asked: {row.asked}).\
{_likeness(row)}{_speed(row)}{_latency(row)}{_notes(row)}

Source: {linked(f"{name} version {source_version}", version_path(name, source_version))}; \
run: {linked(row.title, f"#/experiments/{experiment_id}/runs/{run_id}")}{flow}
"""


def _mended(row: Row, name_of: str, before: float) -> str:
    """What each step after the cut brought."""
    steps = {"compensated": row.after_pruning}
    if row.after_compensation is not None:
        steps = {"compensated": row.after_compensation, "BatchNorm recalibrated": row.after_pruning}
    return "\n".join(f"| test {name_of}, {step} | {before:.4f} | {value:.4f} | |" for step, value in steps.items())


def _likeness(row: Row) -> str:
    if row.test.agreement is None:
        return ""
    kl = "" if row.test.kl is None else f", with a mean KL divergence of {row.test.kl:.3g} from its answers"
    return f" {row.test.agreement:.1%} of the test predictions are the source's{kl}."


def _notes(row: Row) -> str:
    return "\n" + "".join(f"\n- Note: {note}." for note in row.notes) if row.notes else ""


def _speed(row: Row) -> str:
    noisy = " The measurement was too noisy to rank it." if row.is_noisy else ""
    return f" Speedup {row.speedup:.2f}x, 95% interval {row.speedup_low:.2f} to {row.speedup_high:.2f}.{noisy}"


def _latency(row: Row) -> str:
    """The table adds up single calls, so times as such are not comparable; factors are."""
    if row.latency_predicted_ms is None or row.speedup_predicted is None:
        return ""
    return (
        f" The latency table predicted {row.latency_predicted_ms:.3f} ms in its layers, {row.speedup_predicted:.2f}x "
        f"faster; the whole model was measured at {row.latency_p50_ms:.3f} ms, {row.speedup:.2f}x faster."
    )


def noise_note(comparison: Comparison) -> str:
    """Which models the latency measurement cannot rank."""
    noisy = [row.title for row in comparison.rows if row.is_noisy]
    if not noisy:
        return ""
    return (
        f"The latency measurement is too noisy to rank {', '.join(noisy)}: measure on a quieter machine, "
        "or with more measure.rounds."
    )


def notes_on_rows(comparison: Comparison) -> list[str]:
    """What went otherwise than asked, by candidate."""
    return [f"{row.title}: {note}" for row in comparison.rows for note in (*row.notes, row.export_notes) if note]


def calibration_note(comparison: Comparison) -> str:
    """How many images were used, and whether that is fewer than were asked for."""
    used, asked = comparison.calibrated_on, comparison.calibration_asked
    if not used:
        return ""
    short = f", all that it holds ({asked} were asked for)" if used < asked else ""
    return f"Calibrated on {used} images of the training split{short}"


def describe_parent(comparison: Comparison, name: str, mlflow: str = "") -> str:
    """The best line first, because the UI folds the rest away. `mlflow`: its address, for readers outside of its UI."""
    best = next((row for row in comparison.rows if row.title == comparison.challenger), None)
    if best is None:
        first = nothing_passed(comparison)
    else:
        first = (
            f"Best: {linked(f'{best.title}, version {best.version}', mlflow + version_path(name, best.version))}, "
            f"{best.speedup:.2f}x faster, {best.params_factor:.2f}x smaller, "
            f"test {metric_name(best.metric)} {best.test.value:.3f}."
        )
    notes = f"A factor is the source's number divided by the candidate's. {NOTE_ON_DROPS}"
    if note := noise_note(comparison):
        notes += f" {note}"
    if note := calibration_note(comparison):
        notes += f" {note}."
    notes += "".join(f"\n- {note}." for note in notes_on_rows(comparison))
    if mlflow and comparison.run_id:
        notes += f"\n\n[Everything in MLflow]({mlflow}#/experiments/{comparison.experiment_id}/runs/{comparison.run_id})"
    return f"{first}\n\n{to_markdown(comparison)}\n\n{notes}\n"
