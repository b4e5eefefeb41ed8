"""A ready-made page of the MLflow UI: a saved view of an experiment's runs, with charts."""

from pipelines.dashboard.charts import charts_of
from pipelines.dashboard.view import VIEW_PREFIX, View, encode, view_of, view_path

__all__ = ["VIEW_PREFIX", "View", "charts_of", "encode", "view_of", "view_path"]
