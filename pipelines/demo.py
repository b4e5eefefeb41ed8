"""The demo's recipe, on a store of its own."""

from importlib import resources

from pipelines.config import CompressConfig, load_config
from pipelines.environment import data_folder


def demo_config() -> CompressConfig:
    """The recipe, on the demo's own local store whatever MLFLOW_TRACKING_URI says."""
    with resources.as_file(resources.files("pipelines.recipes") / "digits.yaml") as path:
        config = load_config(path)
    tracking = config.tracking.model_copy(update={"uri": local_store_uri()})
    return config.model_copy(update={"tracking": tracking})


def local_store_uri() -> str:
    return f"sqlite:///{data_folder() / 'mlflow.db'}"
