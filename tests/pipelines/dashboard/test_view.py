import base64
import json
import zlib
from typing import Any

from pipelines.dashboard import VIEW_PREFIX, encode, view_of, view_path
from pipelines.dashboard.charts import SECTIONS


def decode(text: str) -> Any:
    packing, _, packed = text.partition(";")
    assert packing == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_a_view_comes_back_as_it_was_packed() -> None:
    view = view_of("accuracy", "parent", "baseline")
    key, value = view.as_tag(1234)
    assert key == f"{VIEW_PREFIX}secateur-latest"
    tag = json.loads(value)
    assert tag["name"] == "secateur: latest compression"
    assert tag["createdAt"] == tag["updatedAt"] == 1234
    assert decode(tag["state"]) == view.state
    assert len(value) < 5_000  # an experiment tag holds 20,000 characters


def test_the_same_view_is_written_the_same_way() -> None:
    assert encode(view_of("accuracy", None, "b").state) == encode(view_of("accuracy", None, "b").state)
    assert view_of("accuracy", None, "b").key != view_of("accuracy", "p", "b").key


def test_every_chart_stands_in_a_section_and_has_an_id_of_its_own() -> None:
    state = view_of("miou", None, "the baseline").state
    sections = {section["uuid"]: section["name"] for section in state["compareRunSections"]}
    assert tuple(sections.values()) == SECTIONS
    charts = state["compareRunCharts"]
    assert {sections[chart["metricSectionId"]] for chart in charts} == set(SECTIONS)
    assert len({chart["uuid"] for chart in charts}) == len(charts)
    difference = next(chart for chart in charts if chart["type"] == "DIFFERENCE")
    assert difference["baselineColumnUuid"] == "the baseline"


def test_the_latest_view_holds_the_runs_of_one_parent() -> None:
    assert "`mlflow.parentRunId` = 'p7'" in view_of("accuracy", "p7", "b").state["searchFilter"]
    assert "parentRunId" not in view_of("accuracy", None, "b").state["searchFilter"]
    assert view_path("12", "secateur").startswith("#/experiments/12/runs?viewStateShareKey=secateur&")
