"""deploy/prefect.yaml: entrypoints that exist, parameters that the flows take, a pool that is named once."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import load_flow_from_entrypoint

from pipelines import environment
from pipelines.servers import prefect_server
from tests.conftest import files_below

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "deploy" / "prefect.yaml").read_text(encoding="utf-8"))


def test_prefect_reads_it() -> None:
    PrefectYamlModel.model_validate(FILE)
    assert {deployment["work_pool"]["name"] for deployment in FILE["deployments"]} == {"secateur"}
    assert {deployment["entrypoint"].rpartition(".")[2] for deployment in FILE["deployments"]} == {
        "compress",
        "promote",
        "scan",
    }


@pytest.mark.parametrize("deployment", FILE["deployments"], ids=lambda deployment: deployment["entrypoint"])
def test_a_deployment_can_be_run_as_it_is(deployment: Any) -> None:
    flow: Any = load_flow_from_entrypoint(deployment["entrypoint"], use_placeholder_flow=False)
    config = flow.validate_parameters(deployment["parameters"])["config"]
    assert config.model_dump(exclude_unset=True)
    wrong = {"config": {**deployment["parameters"]["config"], "unknown": 1}}
    with pytest.raises(Exception, match="unknown"):
        flow.validate_parameters(wrong)
    assert deployment["concurrency_limit"]["limit"] == 1


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """What a user has after `git clone`."""
    folder = tmp_path / "clone"
    for name in ("deploy", "pipelines", "pruning_core"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture
def cli(clone: Path, home: Path) -> Iterator[Callable[..., str]]:
    """`prefect ...` in that folder, with a server of its own: other tests have deployments of the same names."""
    with prefect_server() as server:
        environ = {
            **os.environ,
            environment.HOME_VARIABLE: str(home),
            "PREFECT_API_URL": f"{server.ready()}/api",
            "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "INFO",
            "PYTHONDONTWRITEBYTECODE": "1",
        }

        def prefect(*command: str, **more: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "prefect", *command],
                cwd=clone,
                env={**environ, **more},
                capture_output=True,
                text=True,
                check=False,
                timeout=200,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout + done.stderr

        yield prefect


def test_a_user_deploys_it_and_a_worker_runs_it(clone: Path, cli: Callable[..., str], home: Path) -> None:
    """The commands at the head of the file, as they stand there; then one run that finds nothing to do."""
    head = (clone / "deploy" / "prefect.yaml").read_text(encoding="utf-8")
    before = files_below(clone)
    for command in (
        "work-pool create secateur --type process",
        "--no-prompt deploy --all --prefect-file deploy/prefect.yaml",
    ):
        assert f"prefect {command}\n" in head
        said = cli(*command.split())
    assert not files_below(clone) ^ before
    for deployment in ("compress/secateur", "promote/secateur", "scan/secateur"):
        assert deployment in said

    nothing = {**FILE["deployments"][2]["parameters"]["config"], "models": "no such *"}
    ran = cli("deployment", "run", "scan/secateur", "--params", json.dumps({"config": nothing}))
    assert "Created flow run" in ran
    at_work = {"MLFLOW_TRACKING_URI": f"sqlite:///{home / 'mlflow.db'}", "SECATEUR_PROJECT": str(clone)}
    log = cli("worker", "start", "--pool", "secateur", "--run-once", **at_work)
    assert "Finished in state Completed()" in log, log
