"""A challenger beside the champion, for a person who has to decide."""

from collections.abc import Sequence

from pipelines.promotion import Facts


def trial_markdown(challenger: Facts, champion: Facts | None, reasons: Sequence[str], summary: str) -> str:
    """A sentence, a table of both, and what the gates say."""
    columns = [challenger] if champion is None else [champion, challenger]
    lines = [
        ["", *(facts.title for facts in columns)],
        ["---"] * (len(columns) + 1),
        [f"validation {challenger.metric}", *(f"{facts.value:.4f}" for facts in columns)],
        ["latency p50 (ms)", *(f"{facts.latency_ms:.3f}" for facts in columns)],
        ["params", *(f"{facts.params:,}" for facts in columns)],
        ["MACs", *(f"{facts.macs:,}" for facts in columns)],
        ["size (bytes)", *(f"{facts.size_bytes:,}" for facts in columns)],
    ]
    if champion is not None and challenger.agreement is not None:
        lines.append(["answers as the champion", "", f"{challenger.agreement:.2%}"])
    if champion is not None and challenger.drop_upper is not None:
        lines.append([f"drop of {challenger.metric}, upper bound", "", f"{challenger.drop_upper:.4f}"])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    verdict = f"It does not pass: {'; '.join(reasons)}." if reasons else "It passes every gate."
    return f"{summary}\n\n{table}\n\n{verdict}\n"
