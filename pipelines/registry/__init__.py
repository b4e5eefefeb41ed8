"""The one door to MLflow: nothing outside this package imports it."""

from pipelines.registry.aliases import Aliases
from pipelines.registry.ancestry import ancestry
from pipelines.registry.champion import Standing, promote_version, roll_back, standing
from pipelines.registry.claims import Claims, check_claim, read_claims
from pipelines.registry.copy import copy_version, is_copied
from pipelines.registry.curves import CurveLog
from pipelines.registry.decisions import decide, decisions_in, fitted, record
from pipelines.registry.digest import check_stored_weights
from pipelines.registry.earlier import failed_run, find_finished
from pipelines.registry.experiments import experiment_of
from pipelines.registry.files import folder_digest, stored_recipe
from pipelines.registry.ledger import Entry, open_ledger
from pipelines.registry.ledger import read as read_ledger
from pipelines.registry.naming import logged_name, quoted
from pipelines.registry.onnx_model import log_onnx
from pipelines.registry.patience import RETRY_DELAYS
from pipelines.registry.pull import SourceVersion, fetch_model, input_shape, resolve
from pipelines.registry.push import Export, Exported, create_version, export_model, move_alias, register_first
from pipelines.registry.results import log_files, log_forms, log_result
from pipelines.registry.resume import Registered, find_registered, find_same, forget_exports, remove_doubles
from pipelines.registry.runs import CandidateRun, Runs, fail_run, open_runs, open_training
from pipelines.registry.search import has_model, search_versions
from pipelines.registry.store import Store, check_writable, create_store, open_store
from pipelines.registry.views import experiments_with_compressions, publish_dashboard
from pipelines.registry.wanted import is_marked, is_ours, marked_versions, run_under_way

__all__ = [
    "RETRY_DELAYS",
    "Aliases",
    "CandidateRun",
    "Claims",
    "CurveLog",
    "Entry",
    "Export",
    "Exported",
    "Registered",
    "Runs",
    "SourceVersion",
    "Standing",
    "Store",
    "ancestry",
    "check_claim",
    "check_stored_weights",
    "check_writable",
    "copy_version",
    "create_store",
    "create_version",
    "decide",
    "decisions_in",
    "experiment_of",
    "experiments_with_compressions",
    "export_model",
    "fail_run",
    "failed_run",
    "fetch_model",
    "find_finished",
    "find_registered",
    "find_same",
    "fitted",
    "folder_digest",
    "forget_exports",
    "has_model",
    "input_shape",
    "is_copied",
    "is_marked",
    "is_ours",
    "log_files",
    "log_forms",
    "log_onnx",
    "log_result",
    "logged_name",
    "marked_versions",
    "move_alias",
    "open_ledger",
    "open_runs",
    "open_store",
    "open_training",
    "promote_version",
    "publish_dashboard",
    "quoted",
    "read_claims",
    "read_ledger",
    "record",
    "register_first",
    "remove_doubles",
    "resolve",
    "roll_back",
    "run_under_way",
    "search_versions",
    "standing",
    "stored_recipe",
]
