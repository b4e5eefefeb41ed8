"""The one door to MLflow: nothing outside this package imports it."""

from pipelines.registry.pull import SourceVersion, fetch_model, input_shape, resolve
from pipelines.registry.push import Export, Exported, create_version, export_model, move_alias, register_first
from pipelines.registry.runs import (
    CandidateRun,
    Runs,
    fail_run,
    find_finished,
    log_files,
    log_result,
    log_training,
    open_runs,
    open_training,
    tag_run,
)
from pipelines.registry.store import Store, check_writable, create_store, open_store

__all__ = [
    "CandidateRun",
    "Export",
    "Exported",
    "Runs",
    "SourceVersion",
    "Store",
    "check_writable",
    "create_store",
    "create_version",
    "export_model",
    "fail_run",
    "fetch_model",
    "find_finished",
    "input_shape",
    "log_files",
    "log_result",
    "log_training",
    "move_alias",
    "open_runs",
    "open_store",
    "open_training",
    "register_first",
    "resolve",
    "tag_run",
]
