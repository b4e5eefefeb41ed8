"""A candidate's answers against the source's, to the same samples."""

import numpy as np

from pipelines.records import Score
from pipelines.steps.evaluate.passing import Evaluation
from pipelines.steps.evaluate.statistics import Interval, Numbers, Resampling, bootstrap, mcnemar
from pipelines.tasks import Task


def score(task: Task, own: Evaluation, source: Evaluation, options: Resampling) -> Score:
    """What `own` is worth, what it lost, and whether the loss is more than noise. The source's score is that of itself."""
    sign = 1 if task.higher_is_better else -1
    value, reference = own.metrics[task.primary], source.metrics[task.primary]
    interval, drop = _intervals(task, own, source, sign, options)
    p_value, excess = _p_value(task, own, source, drop, options)
    lost = sign * (reference - value)
    likeness = task.likeness(own.kept, source.kept)
    return Score(
        value=value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        drop=lost,
        drop_low=drop.low if drop else None,
        drop_high=drop.high if drop else None,
        p_value=p_value,
        is_of_losses=excess is not None,
        is_real=p_value is not None and p_value < 1 - options.confidence and (excess is None or excess * lost > 0),
        agreement=likeness.agreement,
        kl=likeness.kl,
        metrics=own.metrics,
    )


def _intervals(
    task: Task, own: Evaluation, source: Evaluation, sign: int, options: Resampling
) -> tuple[Interval | None, Interval | None]:
    """Of the primary metric, and of its drop: the same samples are drawn for both models."""
    summands, reference = task.summands(own.kept), task.summands(source.kept)
    if summands is None or reference is None:
        return None, None
    width = summands.shape[1]

    def drop_of(means: Numbers) -> Numbers:
        return sign * (task.primary_of(means[..., width:]) - task.primary_of(means[..., :width]))

    return bootstrap(summands, task.primary_of, options), bootstrap(np.hstack([summands, reference]), drop_of, options)


def _p_value(
    task: Task, own: Evaluation, source: Evaluation, drop: Interval | None, options: Resampling
) -> tuple[float | None, float | None]:
    """McNemar's where samples are right or wrong; else that of the drop; else of the difference of the losses.

    The second value is that difference, where it was taken: it speaks for a drop only if both point one way.
    """
    correct, source_correct = task.correct(own.kept), task.correct(source.kept)
    if correct is not None and source_correct is not None:
        return mcnemar(correct, source_correct), None
    if drop is not None:
        return drop.p_value, None
    differences = task.losses(own.kept) - task.losses(source.kept)
    interval = bootstrap(differences[:, None], lambda means: means[..., 0], options)
    return (interval.p_value, float(differences.mean())) if interval else (None, None)
