"""What a model is worth: metrics from one pass over each split, how sure they are, and what was lost to the source."""

from pipelines.steps.evaluate.passing import BATCH, Evaluation, Evaluations, assess, assess_all, evaluate
from pipelines.steps.evaluate.statistics import Interval, Resampling, bootstrap, mcnemar
from pipelines.steps.evaluate.stored import load_evaluation, remembered, save_evaluations

__all__ = [
    "BATCH",
    "Evaluation",
    "Evaluations",
    "Interval",
    "Resampling",
    "assess",
    "assess_all",
    "bootstrap",
    "evaluate",
    "load_evaluation",
    "mcnemar",
    "remembered",
    "save_evaluations",
]
