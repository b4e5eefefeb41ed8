"""The three flows as Prefect deployments: forms in its UI, schedules, one at a time."""

import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import ConcurrencyLimitConfig, ConcurrencyLimitStrategy
from prefect.exceptions import ObjectAlreadyExists
from prefect.schedules import Cron, Interval, Schedule
from prefect.types.entrypoint import EntrypointType

from pipelines.config import CompressConfig, PromoteConfig, ScanConfig
from pipelines.environment import data_folder
from pipelines.errors import ConfigError
from pipelines.flows.compress import compress
from pipelines.flows.promote import promote
from pipelines.flows.scan import scan

NAME = "secateur"  # of each deployment, and of the work pool
WAIT, SKIP = ConcurrencyLimitStrategy.ENQUEUE, ConcurrencyLimitStrategy.CANCEL_NEW


def deploy(
    recipe: CompressConfig,
    *,
    pool: str = NAME,
    schedules: Mapping[str, str] | None = None,
    scanned: Mapping[str, Any] | None = None,
) -> list[str]:
    """Make or update `compress/secateur`, `promote/secateur` and `scan/secateur`; the names of what was made.

    `schedules`: flow -> cron line or `every 15m`. `scanned`: options of ScanConfig. The work pool, of type process, is
    made if there is none; each flow runs in the current folder, one run at a time. Raises ConfigError.
    """
    times = {flow: schedule_of(text) for flow, text in (schedules or {}).items()}
    _make_pool(pool)
    name = recipe.source.model.removeprefix("models:/").partition("@")[0].partition("/")[0]
    challenger = PromoteConfig.of(recipe, f"models:/{name}@{recipe.registration.alias}")
    searching = ScanConfig.model_validate({"recipe": recipe, "deployment": f"compress/{NAME}", **(scanned or {})})
    wanted: list[tuple[Flow[Any, Any], Any, ConcurrencyLimitStrategy]] = [
        (compress, recipe, WAIT),
        (promote, challenger, WAIT),
        (scan, searching, SKIP),
    ]
    for flow, config, strategy in wanted:
        made: Any = flow.to_deployment(
            NAME,
            parameters={"config": config.model_dump(mode="json")},
            schedule=times.get(flow.name),
            concurrency_limit=ConcurrencyLimitConfig(limit=1, collision_strategy=strategy),
            work_pool_name=pool,
            job_variables={"working_dir": os.getcwd(), "env": {"SECATEUR_HOME": str(data_folder())}},
            entrypoint_type=EntrypointType.MODULE_PATH,
            tags=["secateur"],
        )
        made.apply()
    return [f"{flow.name}/{NAME}" for flow, _, _ in wanted]


def schedule_of(text: str) -> Schedule:
    """A cron line, or `every 15m` (s, m, h or d). Raises ConfigError."""
    every, _, number = text.strip().partition(" ")
    try:
        if every == "every":
            unit = {"s": 1, "m": 60, "h": 3600, "d": 86400}[number.strip()[-1:]]
            seconds = float(number.strip()[:-1]) * unit
            return Interval(timedelta(seconds=seconds))
        return Cron(text, timezone="UTC")
    except (KeyError, ValueError) as exc:
        raise ConfigError(
            f"{text!r} is no schedule", "a schedule", "write a cron line in UTC, e.g. '0 3 * * *', or 'every 15m'"
        ) from exc


def _make_pool(name: str) -> None:
    with get_client(sync_client=True) as client:
        try:
            client.create_work_pool(WorkPoolCreate(name=name, type="process"))
        except ObjectAlreadyExists:
            return
