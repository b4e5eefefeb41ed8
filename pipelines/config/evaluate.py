"""What the model is judged by, and how sure the numbers are."""

from typing import Any

from pydantic import Field, model_validator

from pipelines.config.section import Section


class Task(Section):
    """What the model is trained for: its loss, its metrics, and the one that decides. A plain string is its name."""

    name: str = Field(
        default="classification",
        description="`classification`, `segmentation`, `regression`, or `package.module:Class` for a "
        "pipelines.tasks.Task of your own, which must be below one of source.trust",
    )
    kwargs: dict[str, Any] = Field(default_factory=dict, description="of the task, e.g. `{primary: rmse}` for regression")

    @model_validator(mode="before")
    @classmethod
    def _a_string_is_its_name(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value


class Evaluate(Section):
    """How a model is judged: one pass over each split, and the statistics of what was kept of it."""

    batch_size: int = Field(default=256, ge=1, description="samples per call")
    resamples: int = Field(default=1000, ge=100, description="of the bootstrap behind the confidence intervals")
    confidence: float = Field(default=0.95, gt=0.5, lt=1, description="of every interval; a drop is real below 1 - this")
    seed: int = Field(default=0, ge=0, description="of the resampling")
