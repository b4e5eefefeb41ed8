"""Where things are kept, and the defaults that must be set before MLflow and Prefect are imported."""

import getpass
import logging
import os
from pathlib import Path

HOME_VARIABLE = "SECATEUR_HOME"
DEFAULTS = {
    # nothing we start phones home
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
    "PREFECT_SERVER_UI_V2_ENABLED": "false",  # it fetches a script from a third party
    # quiet
    "GIT_PYTHON_REFRESH": "quiet",
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # we show errors; its UI gets all from INFO up
    "MLFLOW_LOGGING_LEVEL": "ERROR",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # an unreachable server is reported within a minute
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",
}
_PREFECT_CHOICES = ("PREFECT_HOME", "PREFECT_API_URL", "PREFECT_PROFILE", "PREFECT_PROFILES_PATH")


def data_folder() -> Path:
    """Our own files: `.secateur` in the current folder, or where `SECATEUR_HOME` points."""
    return Path(os.environ.get(HOME_VARIABLE) or ".secateur").absolute()


def work_folder() -> Path:
    """Weights on their way between tasks; one folder per flow run, removed when it ends."""
    return data_folder() / "work"


def default_tracking_uri() -> str:
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{data_folder() / 'mlflow.db'}"


def user() -> str:
    """Who runs this, for the records."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def prepare() -> None:
    """Set each default that the user has not set. Must run before MLflow or Prefect is imported."""
    logging.getLogger("pipelines").setLevel(logging.WARNING)  # MLflow puts all others to the level of its own
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    if not _has_own_prefect():
        os.environ["PREFECT_HOME"] = str(data_folder() / "prefect")


def has_own_prefect_server() -> bool:
    """Has the user a Prefect server, by variable or profile?"""
    if os.environ.get("PREFECT_API_URL"):
        return True
    if os.environ.get("PREFECT_HOME") == str(data_folder() / "prefect"):
        return False  # `prepare` found nothing of theirs
    from prefect.settings import get_current_settings  # slow to import, so only where it matters

    return get_current_settings().api.url is not None


def _has_own_prefect() -> bool:
    return any(name in os.environ for name in _PREFECT_CHOICES) or (Path.home() / ".prefect" / "profiles.toml").exists()
