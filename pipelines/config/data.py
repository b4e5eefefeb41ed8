"""What a model learns from and is judged on."""

from pydantic import Field, field_validator, model_validator

from pipelines.config.section import Section
from pipelines.data import DATASETS
from pipelines.names import did_you_mean


class Data(Section):
    """What the model is fine-tuned and judged on."""

    name: str = Field(
        default="digits", description="a registered data set: `digits`, `fashion-mnist`, or `npz` for a file of your own"
    )
    path: str | None = Field(
        default=None,
        description="for `npz`: a file with the arrays `x` [N, ...] and `y` [N]; for `fashion-mnist`: the folder of its "
        "four files, by default that of the Debian package, else they are downloaded",
    )
    validation: float = Field(default=0.2, gt=0, lt=1, description="fraction of the images that the gate looks at")
    test: float = Field(
        default=0.2,
        gt=0,
        lt=1,
        description="fraction of the images that only the report looks at; fashion-mnist has a test split of its own",
    )
    seed: int = Field(default=0, ge=0, description="of the split")

    @field_validator("name")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in DATASETS:
            raise ValueError(f"no data set {value!r}; {did_you_mean(value, DATASETS)}")
        return value

    @model_validator(mode="after")
    def _leaves_something_to_train_on(self) -> "Data":
        if self.validation + self.test >= 1:
            raise ValueError(f"validation {self.validation} + test {self.test} leave nothing to train on")
        return self


class Calibration(Section):
    """Images of the training split from which statistics are taken: scores, and the repair of what a cut took away."""

    samples: int = Field(
        default=1024,
        ge=0,
        description="so many, or the whole training split where it holds fewer (the run records how many); 0: none",
    )
    seed: int = Field(default=0, ge=0, description="of the choice of images")
