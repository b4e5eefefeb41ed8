"""How the champion is replaced."""

from typing import ClassVar

from pydantic import Field

from pipelines.config.data import Data
from pipelines.config.evaluate import Evaluate, Task
from pipelines.config.measure import Measure
from pipelines.config.recipe import CompressConfig
from pipelines.config.registration import Gate, Promotion, Tracking
from pipelines.config.section import Section
from pipelines.config.source import Source


class PromoteConfig(Section):
    """A version that wants to become the champion of its registered model, and what it is judged by."""

    source: Source = Field(description="the challenger, e.g. models:/name@challenger, and whose code may rebuild it")
    data: Data = Data()
    task: Task = Task()
    evaluate: Evaluate = Evaluate()
    measure: Measure = Measure()
    gate: Gate = Gate()
    promotion: Promotion = Promotion()
    tracking: Tracking = Field(default_factory=Tracking)

    JUDGED_BY: ClassVar[tuple[str, ...]] = ("data", "task", "evaluate", "measure", "gate", "promotion")

    @classmethod
    def of(cls, recipe: CompressConfig, model: str) -> "PromoteConfig":
        """By the recipe that the version was made by."""
        source = Source.model_validate({**recipe.source.model_dump(), "model": model})
        sections = {name: getattr(recipe, name) for name in (*cls.JUDGED_BY, "tracking")}
        return cls(source=source, **sections)
