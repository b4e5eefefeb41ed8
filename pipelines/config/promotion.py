"""How the champion is replaced."""

from pydantic import Field

from pipelines.config.data import Data
from pipelines.config.measure import Measure
from pipelines.config.recipe import CompressConfig
from pipelines.config.registration import Gate, Promotion, Tracking
from pipelines.config.section import Section
from pipelines.config.source import Source


class PromoteConfig(Section):
    """A version that wants to become the champion of its registered model, and what it is judged by."""

    source: Source = Field(description="the challenger, e.g. models:/name@challenger, and whose code may rebuild it")
    data: Data = Data()
    measure: Measure = Measure()
    gate: Gate = Gate()
    promotion: Promotion = Promotion()
    tracking: Tracking = Field(default_factory=Tracking)

    @classmethod
    def of(cls, recipe: CompressConfig, model: str) -> "PromoteConfig":
        """By the recipe that the version was made by."""
        source = Source.model_validate({**recipe.source.model_dump(), "model": model})
        sections = {name: getattr(recipe, name) for name in ("data", "measure", "gate", "promotion", "tracking")}
        return cls(source=source, **sections)
