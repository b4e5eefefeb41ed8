"""The dashboard in a real browser, on the runs of a real flow."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines import registry
from pipelines.dashboard import VIEW_PREFIX, view_path
from pipelines.errors import SourceError
from pipelines.registry import Store
from pipelines.registry.views import NOTE, with_links
from pipelines.servers import free_port, mlflow_server
from tests.pipelines.flows.conftest import Flows

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NO_BROWSER = "no Chromium here: `apt install chromium`, then the dashboard is looked at too"
OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--disable-dev-shm-usage"]
POINTS = """() => [...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data[0]).filter(
    trace => trace.type === 'scatter' && trace.text).map(trace => [[...trace.text], [...trace.x], [...trace.y]])"""


@pytest.fixture
def page() -> Iterator[Any]:
    if CHROMIUM is None:
        pytest.skip(NO_BROWSER)
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=OPTIONS)
        yield browser.new_page(viewport={"width": 1600, "height": 1700})
        browser.close()


def screenshot(page: Any, name: str, tmp_path: Path) -> None:
    """Kept where TEST_ARTIFACTS says."""
    folder = Path(os.environ.get("TEST_ARTIFACTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=folder / f"{name}.png")


def test_a_browser_shows_the_points_of_the_comparison(flows: Flows, own_copy: str, page: Any, tmp_path: Path) -> None:
    comparison = flows.first.comparison
    assert comparison.experiment_id
    with mlflow_server(own_copy, free_port(5321)) as server:
        server.ready()
        page.goto(f"{server.url}/{view_path(comparison.experiment_id, 'secateur-latest')}")
        for title in ("latency_p50_ms vs. accuracy", "macs vs. accuracy", "accuracy_drop", "difference to the source"):
            page.get_by_text(title).first.wait_for(state="attached", timeout=90_000)
        page.wait_for_function(f"({POINTS})().length >= 2", timeout=90_000)
        by_latency, by_macs = page.evaluate(POINTS)[:2]
        screenshot(page, "dashboard", tmp_path)
        assert "secateur: all compressions" in page.inner_text("body")  # the links in the experiment's note
    rows = {("baseline" if row is comparison.rows[0] else row.title): row for row in comparison.rows}
    for (names, xs, ys), cost in ((by_latency, "latency_p50_ms"), (by_macs, "macs")):
        assert set(names) == set(rows)
        for name, x, y in zip(names, xs, ys, strict=True):
            assert x == pytest.approx(getattr(rows[name], cost))
            assert y == pytest.approx(rows[name].test.value)


def test_the_report_opens_without_a_server(flows: Flows, page: Any, tmp_path: Path) -> None:
    comparison = flows.first.comparison
    client = Store(flows.first.uri).client
    path = Path(client.download_artifacts(comparison.run_id, "report.html", str(tmp_path)))
    requests: list[str] = []
    page.on("request", lambda request: requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_function("document.querySelectorAll('.js-plotly-plot').length == 3", timeout=90_000)
    screenshot(page, "report", tmp_path)
    assert not [url for url in requests if url.startswith("http")]
    text = page.inner_text("body")
    for row in comparison.rows:
        assert row.title in text
    assert "Pareto" in page.evaluate("document.querySelector('.js-plotly-plot').data[0].name")


def test_publishing_again_changes_nothing_and_keeps_what_people_wrote(flows: Flows, own_copy: str) -> None:
    store = registry.open_store(own_copy)
    client, (experiment_id,) = store.client, registry.experiments_with_compressions(store, "digits-resnet")
    assert experiment_id == flows.first.comparison.experiment_id
    views = {key for key in client.get_experiment(experiment_id).tags if key.startswith(VIEW_PREFIX)}
    assert views == {f"{VIEW_PREFIX}secateur", f"{VIEW_PREFIX}secateur-latest"}  # by the flow itself
    ours = client.get_experiment(experiment_id).tags[NOTE]
    client.set_experiment_tag(experiment_id, NOTE, f"Read me first.\n\n{ours}\n\nAnd me last.")
    before = client.get_registered_model("digits-resnet").description
    for _ in range(2):
        paths = registry.publish_dashboard(store, "digits-resnet", experiment_id)
    assert client.get_experiment(experiment_id).tags[NOTE] == f"Read me first.\n\n{ours}\n\nAnd me last."
    assert client.get_registered_model("digits-resnet").description == before
    assert all(path in before for path in paths.values())


def test_a_model_without_compressions_or_a_typo_is_told(own_copy: str) -> None:
    store = registry.open_store(own_copy)
    with pytest.raises(SourceError, match="did you mean 'digits-resnet'"):
        registry.experiments_with_compressions(store, "digits-resnt")
    store.client.create_registered_model("plain")
    with pytest.raises(SourceError, match="no compressed versions"):
        registry.experiments_with_compressions(store, "plain")


def test_links_replace_only_themselves() -> None:
    once = with_links("mine", "a")
    assert once.startswith("mine\n\n")
    assert with_links(once, "b") == once.replace("\na\n", "\nb\n")
    assert with_links("", "a") in once
