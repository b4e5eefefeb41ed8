"""A saved view: what the MLflow UI keeps as a tag of the experiment, for everyone who opens it."""

import base64
import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines import lineage
from pipelines.dashboard.charts import charts_of, sections

VIEW_PREFIX = "mlflow.sharedViewState."
COLUMNS = (lineage.LATENCY_P50, lineage.SPEEDUP, lineage.PARAMS_FACTOR)


@dataclass(frozen=True, slots=True)
class View:
    key: str  # of the view among those of its experiment
    name: str  # in the UI's menu "Views"
    state: Mapping[str, Any]

    def as_tag(self, now_ms: int) -> tuple[str, str]:
        """Key and value of the experiment tag; the UI sorts by the time."""
        value = {"name": self.name, "createdAt": now_ms, "updatedAt": now_ms, "state": encode(self.state)}
        return f"{VIEW_PREFIX}{self.key}", json.dumps(value)


def view_of(metric: str, parent_run_id: str | None, baseline_run_id: str) -> View:
    """Sources and candidates of one compression, or of all in the experiment; `metric` is the primary one of the task."""
    of_kind = f"tags.`{lineage.KIND}` != 'parent'"  # only runs that have the tag at all
    chosen = f"{of_kind} and tags.`mlflow.parentRunId` = '{parent_run_id}'" if parent_run_id else of_kind
    state = {
        "searchFilter": chosen,
        "orderByKey": f"metrics.`{lineage.LATENCY_P50}`",  # by time, children hide behind their parent, also in charts
        "orderByAsc": True,
        "lifecycleFilter": "Active",
        "selectedColumns": [f"metrics.`{column}`" for column in (metric, lineage.DROP.format(metric), *COLUMNS)]
        + [f"tags.`{lineage.GATE}`"],
        "runsHiddenMode": "SHOW_ALL",
        "compareRunCharts": charts_of(metric, baseline_run_id),
        "compareRunSections": sections(),
        "isAccordionReordered": True,
        "hideEmptyCharts": False,
        "autoRefreshEnabled": False,
    }
    if parent_run_id:
        return View("secateur-latest", "secateur: latest compression", state)
    return View("secateur", "secateur: all compressions", state)


def encode(state: Mapping[str, Any]) -> str:
    """As the MLflow UI packs it."""
    return "deflate;" + base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()


def view_path(experiment_id: str, key: str) -> str:
    """The address inside the MLflow UI. `workflowType` keeps it from opening the view for language models."""
    query = f"viewStateShareKey={key}&compareRunsMode=CHART&workflowType=machine_learning"
    return f"#/experiments/{experiment_id}/runs?{query}"
