"""What is registered, and where."""

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from pipelines.config.section import Section
from pipelines.environment import default_tracking_uri

ALIAS = re.compile(r"(?!v\d+$|latest$)[\w-]{1,255}")
FUNCTION = re.compile(r"(?:[^\W\d]\w*\.)*[^\W\d]\w*:[^\W\d]\w*")


def alias_of(value: str) -> str:
    if not ALIAS.fullmatch(value):
        raise ValueError(f"{value!r} cannot be an alias; use letters, digits, - and _, not 'latest' or 'v1'")
    return value


class Gate(Section):
    """What a candidate must do to pass. Everything is measured on the validation split; unset limits do not count."""

    max_accuracy_drop: float = Field(
        default=0.02,
        ge=0,
        le=1,
        description="accuracy it may lose against the source, on the validation split (0.02 = 2 points)",
    )
    by_confidence_bound: bool = Field(
        default=False,
        description="judge the upper end of the drop's confidence interval, not the drop itself: few images then fail more",
    )
    min_agreement: float | None = Field(
        default=None, ge=0, le=1, description="share of the images on which it must answer as the source does"
    )
    min_speedup: float | None = Field(default=None, gt=0, description="source's median latency / its own; 1.5 = 1.5x faster")
    max_latency_ms: float | None = Field(default=None, gt=0, description="median of one call, as `measure` takes it")
    max_size_mb: float | None = Field(default=None, gt=0, description="of the weights file, in 10^6 bytes")
    max_macs: float | None = Field(default=None, gt=0, description="multiply-accumulates of one image")
    min_macs_factor: float | None = Field(default=None, gt=0, description="source's MACs / its own; 2 = half of them")
    function: str | None = Field(
        default=None,
        description="`package.module:function` of your own, below a path of source.trust: it gets the candidate's Facts and "
        "the source's, and returns None, or the reason why not",
    )

    @field_validator("function")
    @classmethod
    def _is_a_path(cls, value: str | None) -> str | None:
        if value is not None and not FUNCTION.fullmatch(value):
            raise ValueError(f"{value!r} names no function; write package.module:function")
        return value


class Registration(Section):
    """Where the results go: always the source's own registered model."""

    objective: Literal["knee", "latency", "accuracy", "size", "macs", "params"] = Field(
        default="knee",
        description="which of those that passed gets the alias; knee: where more speed begins to cost more accuracy",
    )
    rejected: Literal["skip", "register"] = Field(
        default="skip", description="what fails the gate: not registered, or registered with the tag `rejected`"
    )
    alias: str = Field(default="challenger", description="moved to the best candidate that passed, as the last step")
    experiment: str | None = Field(default=None, description="MLflow experiment of the runs; default: the source's own")

    @field_validator("alias")
    @classmethod
    def _is_an_alias(cls, value: str) -> str:
        return alias_of(value)


class CopyTo(Section):
    """Another registered model that gets every new champion, in this registry or in another one."""

    model: str = Field(min_length=1, description="its name, e.g. prod.digits")
    tracking_uri: str | None = Field(default=None, description="of the other registry; default: the same one")


class Promotion(Section):
    """How the champion is replaced."""

    champion: str = Field(default="champion", description="the alias that is moved to what passed")
    previous: str = Field(default="previous", description="the alias that keeps the champion before")
    approval: bool = Field(
        default=False,
        description="wait for a person: the flow run is suspended with a form, or `secateur promote --approve`",
    )
    approval_days: float = Field(default=7.0, gt=0, description="the run fails if nobody has answered by then")
    lease_minutes: float = Field(
        default=30.0, ge=1, description="how long a promotion may hold the model if its process dies; it ends sooner itself"
    )
    copy_to: CopyTo | None = Field(
        default=None, description="where a promoted version is copied to as well; default: nowhere"
    )

    @field_validator("champion", "previous")
    @classmethod
    def _is_an_alias(cls, value: str) -> str:
        return alias_of(value)

    @model_validator(mode="after")
    def _aliases_differ(self) -> "Promotion":
        if self.champion == self.previous:
            raise ValueError(f"promotion.champion and promotion.previous are both {self.champion!r}; they must differ")
        return self


class Tracking(Section):
    """Where MLflow keeps its records."""

    uri: str = Field(
        default_factory=default_tracking_uri,
        description="tracking and registry URI; default: MLFLOW_TRACKING_URI, or SQLite in the data folder",
    )
