"""Numbers in plain words."""

from urllib.parse import quote

from pipelines.steps.compare import Comparison, Row

NOTE_ON_DROPS = (
    "A drop is of the test split against the source, on the same samples; `real` where a paired test finds it to be more "
    "than noise (McNemar's where samples are right or wrong, else a paired bootstrap; of the losses where the metric is no "
    "mean over samples)."
)
NAMES = {"miou": "mIoU", "mae": "MAE", "rmse": "RMSE", "r2": "R2"}


def metric_name(metric: str) -> str:
    """As people write it."""
    return NAMES.get(metric, metric.replace("_", " "))


def drop_cell(row: Row) -> str:
    """`0.012 real`, `0.003 noise`; below 0 where the model became better."""
    score = row.test
    if score.drop == 0 and not score.is_real:
        return "0"
    kind = "" if score.p_value is None else " real" if score.is_real else " noise"
    return f"{score.drop:.3f}{kind}"


def drop_in_words(row: Row) -> str:
    """Whether the difference to the source is more than noise, and its interval."""
    score = row.test
    if score.drop == 0 and not score.is_real:
        return "as good as the source"
    text = f"{'a gain' if score.drop < 0 else 'a drop'} of {abs(score.drop):.4f}"
    if score.drop_low is not None and score.drop_high is not None:
        ends = (score.drop_low, score.drop_high) if score.drop > 0 else (-score.drop_high, -score.drop_low)
        text += f" (interval {ends[0]:.4f} to {ends[1]:.4f})"
    if score.p_value is None:
        return text
    if score.is_of_losses:
        kind = "like it, by more than noise" if score.is_real else "within noise, or the other way"
        return f"{text}; the losses of the samples differ {kind} (p = {score.p_value:.2g})"
    return f"{text}, {'more than noise' if score.is_real else 'within noise'} (p = {score.p_value:.2g})"


def registered_cell(row: Row) -> str:
    """`version 3`, `version 4, rejected: lost 0.1 ...`, `no: lost 0.1 ...`."""
    if row.version is None:
        return f"no: {row.verdict}"
    return f"version {row.version}" + ("" if row.passed else f", rejected: {row.verdict}")


def nothing_passed(comparison: Comparison) -> str:
    """What became of the candidates where there is no best one."""
    rejected = [row for row in comparison.rows[1:] if row.version is not None]
    if not rejected:
        return "No candidate passed the gate, nothing was registered."
    versions = ", ".join(f"version {row.version}" for row in rejected)
    return f"No candidate passed the gate; registered as rejected: {versions}."


def version_path(name: str, version: int | None) -> str:
    """Inside the MLflow UI. Names hold spaces, brackets and all that an address must not."""
    return f"#/models/{quote(name, safe='')}/versions/{version}"


def linked(text: str, address: str) -> str:
    """In Markdown."""
    shown = text.replace("[", "\\[").replace("]", "\\]")
    return f"[{shown}]({address})"
