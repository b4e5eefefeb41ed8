"""The recipe as a whole."""

import yaml
from pydantic import Field, ValidationInfo, field_validator, model_validator

from pipelines.config.candidate import Candidate
from pipelines.config.data import Calibration, Data
from pipelines.config.evaluate import Evaluate, Task
from pipelines.config.export import Export
from pipelines.config.finetune import Finetune
from pipelines.config.measure import Measure
from pipelines.config.registration import Gate, Promotion, Registration, Tracking
from pipelines.config.section import Section
from pipelines.config.source import Source


class CompressConfig(Section):
    """A recipe: source, data, candidates, fine-tuning, measurement, export, gate, registration."""

    source: Source
    data: Data = Data()
    task: Task = Task()
    calibration: Calibration = Calibration()
    candidates: tuple[Candidate, ...] = Field(
        min_length=1, description="the versions to make, at least one, e.g. `- ratio: 0.5`"
    )
    finetune: Finetune = Finetune()
    evaluate: Evaluate = Evaluate()
    measure: Measure = Measure()
    export: Export = Export()
    gate: Gate = Gate()
    registration: Registration = Registration()
    promotion: Promotion = Promotion()
    tracking: Tracking = Field(default_factory=Tracking)

    @field_validator("candidates")
    @classmethod
    def _nothing_is_left_to_guess(cls, value: tuple[Candidate, ...], info: ValidationInfo) -> tuple[Candidate, ...]:
        """What `auto` means is decided here, so that titles, runs and stored configurations say it."""
        calibration = info.data.get("calibration")
        if calibration is None:
            return value
        for candidate in value:
            if not calibration.samples:
                mends = [] if candidate.compensation in ("auto", "none") else [f"compensation {candidate.compensation!r}"]
                for wish in [*mends, *(["recalibrate_bn"] if candidate.recalibrate_bn else [])]:
                    raise ValueError(f"{candidate.title}: {wish} needs data; set calibration.samples, e.g. to 1024")
        return tuple(candidate.resolved(calibration.samples > 0) for candidate in value)

    @model_validator(mode="after")
    def _titles_differ(self) -> "CompressConfig":
        titles = [candidate.title for candidate in self.candidates]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"two candidates are called {title!r}; give one of them another `name`")
        return self

    @model_validator(mode="after")
    def _alias_is_not_the_source(self) -> "CompressConfig":
        if self.source.model.endswith(f"@{self.registration.alias}"):
            raise ValueError(f"registration.alias {self.registration.alias!r} is the source's own alias; it would be moved")
        return self

    def to_yaml(self) -> str:
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False)
