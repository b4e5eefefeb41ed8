"""What each task of the compress flow does: steps and registry put together, callable without Prefect."""

from pipelines.flows.stages.evaluating import evaluate_source
from pipelines.flows.stages.identity import earlier_result, identify, key_of, work_key
from pipelines.flows.stages.job import Job
from pipelines.flows.stages.measuring import measure_latency
from pipelines.flows.stages.preparing import check_data_fits, prepare
from pipelines.flows.stages.pruning import every_candidate_failed, prune_candidate
from pipelines.flows.stages.publishing import publish
from pipelines.flows.stages.recommending import recommend
from pipelines.flows.stages.registering import register_candidate
from pipelines.flows.stages.training import Listeners, finetune_candidate, help_train, regularize_source

__all__ = [
    "Job",
    "Listeners",
    "check_data_fits",
    "earlier_result",
    "evaluate_source",
    "every_candidate_failed",
    "finetune_candidate",
    "help_train",
    "identify",
    "key_of",
    "measure_latency",
    "prepare",
    "prune_candidate",
    "publish",
    "recommend",
    "register_candidate",
    "regularize_source",
    "work_key",
]
