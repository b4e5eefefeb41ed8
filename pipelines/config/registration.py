"""What is registered, and where."""

import re

from pydantic import Field, field_validator

from pipelines.config.section import Section
from pipelines.environment import default_tracking_uri

ALIAS = re.compile(r"(?!v\d+$|latest$)[\w-]{1,255}")


class Gate(Section):
    """What a candidate must do to be registered."""

    max_accuracy_drop: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="accuracy it may lose against the source, on the validation split (0.02 = 2 points)",
    )


class Registration(Section):
    """Where the results go: always the source's own registered model."""

    alias: str = Field(default="challenger", description="moved to the fastest candidate that passed, as the last step")
    experiment: str | None = Field(default=None, description="MLflow experiment of the runs; default: the source's own")

    @field_validator("alias")
    @classmethod
    def _is_an_alias(cls, value: str) -> str:
        if not ALIAS.fullmatch(value):
            raise ValueError(f"{value!r} cannot be an alias; use letters, digits, - and _, not 'latest' or 'v1'")
        return value


class Tracking(Section):
    """Where MLflow keeps its records."""

    uri: str = Field(
        default_factory=default_tracking_uri,
        description="tracking and registry URI; default: MLFLOW_TRACKING_URI, or SQLite in the data folder",
    )
