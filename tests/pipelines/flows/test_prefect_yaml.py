"""deploy/prefect.yaml: entrypoints that exist, parameters that the flows take, a pool that is named once."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.cli.deploy._models import PrefectYamlModel
from prefect.flows import load_flow_from_entrypoint

FILE = yaml.safe_load((Path(__file__).parents[3] / "deploy" / "prefect.yaml").read_text(encoding="utf-8"))


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
