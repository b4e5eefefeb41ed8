"""What happened, as events that Prefect automations can react to: see "Notifications" in the README."""

from prefect.events import emit_event

from pipelines.steps.compare import Comparison

GATE_PASSED, GATE_FAILED = "secateur.gate.passed", "secateur.gate.failed"
PROMOTED = "secateur.promoted"


def resource_of(name: str) -> dict[str, str]:
    """The registered model, as Prefect names things."""
    return {"prefect.resource.id": f"secateur.model.{name}", "prefect.resource.name": name}


def tell_judged(comparison: Comparison, name: str) -> None:
    """One event per flow: did a candidate pass its gates, and which is the best?"""
    best = next((row for row in comparison.rows if row.title == comparison.challenger), None)
    if best is None:
        reasons = {row.title: row.verdict for row in comparison.rows[1:]}
        emit_event(GATE_FAILED, resource_of(name), payload={"source": comparison.source, "reasons": reasons})
        return
    payload = {
        "source": comparison.source,
        "version": best.version,
        "title": best.title,
        "metric": best.metric,
        "test": best.test.value,
        "drop": best.test.drop,
        "speedup": best.speedup,
        "run_id": comparison.run_id,
    }
    emit_event(GATE_PASSED, resource_of(name), payload=payload)


def tell_promoted(name: str, version: int, before: int | None, summary: str) -> None:
    emit_event(PROMOTED, resource_of(name), payload={"version": version, "before": before, "summary": summary})
