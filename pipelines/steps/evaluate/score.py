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
    p_value = _p_value(task, own, source, drop, options)
    likeness = task.likeness(own.kept, source.kept)
    return Score(
        value=value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        drop=sign * (reference - value),
        drop_low=drop.low if drop else None,
        drop_high=drop.high if drop else None,
        p_value=p_value,
        is_real=p_value is not None and p_value < 1 - options.confidence,
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


def _p_value(task: Task, own: Evaluation, source: Evaluation, drop: Interval | None, options: Resampling) -> float | None:
    """McNemar's where samples are right or wrong; else that of the drop; else of the difference of the losses."""
    correct, source_correct = task.correct(own.kept), task.correct(source.kept)
    if correct is not None and source_correct is not None:
        return mcnemar(correct, source_correct)
    if drop is None:
        differences = task.losses(own.kept) - task.losses(source.kept)
        drop = bootstrap(differences[:, None], lambda means: means[..., 0], options)
    return drop.p_value if drop else None
