"""`secateur serve` as a user runs it: servers, worker and schedule, until it is told to stop."""

import contextlib
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from pipelines import environment
from pipelines.servers import ServerError, check_alone

URIS = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
RECIPE = """\
source:
  model: models:/digits-resnet@champion
  first: {factory: "pipelines.models:small_resnet"}  # there is a version, so none is made
calibration: {samples: 64}
candidates: [{ratio: 0.3, criterion: l2_norm, compensation: none}]
finetune: {epochs: 500}
"""


@pytest.fixture
def home(demo_home: Path, tmp_path: Path) -> Path:
    shutil.copyfile(demo_home / "mlflow.db", tmp_path / "mlflow.db")
    return tmp_path


@pytest.fixture
def served(home: Path) -> Iterator[subprocess.Popen[str]]:
    recipe = home / "recipe.yaml"
    recipe.write_text(RECIPE)
    program = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); import pipelines.cli as c; c.main()"
    own = {name: value for name, value in os.environ.items() if name not in URIS}  # MLflow keeps those of other tests there
    process = subprocess.Popen(
        [sys.executable, "-c", program, "serve", str(recipe), "--scan-at", "every 20s"],
        env={**own, environment.HOME_VARIABLE: str(home)},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
    for left in left_over(home):
        os.kill(left, signal.SIGKILL)


def left_over(home: Path) -> list[int]:
    """Processes that work on this data folder."""
    wanted, found = f"{environment.HOME_VARIABLE}={home}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (folder / "environ").read_bytes().split(b"\0") and (folder / "cmdline").read_bytes():
                found.append(int(folder.name))
        except OSError:
            continue
    return found


def test_a_schedule_finds_the_champion_and_all_stops_with_ctrl_c(
    served: subprocess.Popen[str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert served.stdout is not None
    said = []
    while not said or not said[-1].startswith("Ctrl-C"):
        said.append(served.stdout.readline())
        assert said[-1], "".join(said)
    url = next(line.split()[-1] for line in said if line.startswith("Prefect UI"))

    monkeypatch.setenv(environment.HOME_VARIABLE, str(home))
    with pytest.raises(ServerError, match="run on this data folder already"):
        check_alone()

    states: dict[str, str] = {}
    while states.get("compress") != "RUNNING":
        time.sleep(1)
        flows = {f["id"]: f["name"] for f in httpx.post(f"{url}/api/flows/filter", json={}).json()}
        runs = httpx.post(f"{url}/api/flow_runs/filter", json={"sort": "START_TIME_DESC"}).json()
        started = [run for run in runs if run["start_time"]]
        states = {flows[run["flow_id"]]: run["state"]["type"] for run in started}
        assert not {"FAILED", "CRASHED"} & set(states.values()), [run["state"]["message"] for run in started]

    served.send_signal(signal.SIGINT)
    assert served.wait(timeout=60) == 0
    deadline = time.monotonic() + 30
    while left_over(home) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert left_over(home) == []
    with contextlib.closing(sqlite3.connect(home / "mlflow.db")) as database:
        assert database.execute("select name from runs where status = 'RUNNING'").fetchall() == []
