"""The one door to MLflow: nothing outside this package imports it."""

from pipelines.registry.digest import check_stored_weights
from pipelines.registry.onnx_model import log_onnx
from pipelines.registry.pull import SourceVersion, fetch_model, input_shape, resolve
from pipelines.registry.push import Export, Exported, create_version, export_model, move_alias, register_first
from pipelines.registry.runs import (
    CandidateRun,
    CurveLog,
    Runs,
    fail_run,
    find_finished,
    log_files,
    log_forms,
    log_result,
    open_runs,
    open_training,
)
from pipelines.registry.store import Store, check_writable, create_store, open_store
from pipelines.registry.views import experiments_with_compressions, publish_dashboard

__all__ = [
    "CandidateRun",
    "CurveLog",
    "Export",
    "Exported",
    "Runs",
    "SourceVersion",
    "Store",
    "check_stored_weights",
    "check_writable",
    "create_store",
    "create_version",
    "experiments_with_compressions",
    "export_model",
    "fail_run",
    "fetch_model",
    "find_finished",
    "input_shape",
    "log_files",
    "log_forms",
    "log_onnx",
    "log_result",
    "move_alias",
    "open_runs",
    "open_store",
    "open_training",
    "publish_dashboard",
    "register_first",
    "resolve",
]
